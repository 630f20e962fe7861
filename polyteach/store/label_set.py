"""A label set: one teacher's, or people's, answers to one task over a store's images, decoded and encoded."""

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, fields
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool
from torch import Tensor

from polyteach.ground.fields import Fields
from polyteach.store.codec import arrow_type, columns_of, decode, encode, room, stored_value
from polyteach.store.index import several
from polyteach.store.label_folder import CALIBRATION, LabelFolder
from polyteach.store.parts import part_name, read_part, write_part
from polyteach.store.records import as_json
from polyteach.store.rows import ABSENT, FAILED, LABELLED, ROW_GROUP, Answer, ImageRow, Unfit
from polyteach.store.salvage import LOOKED_AT, salvaged
from polyteach.store.statistics import why_useless
from polyteach.tasks import load_task
from polyteach.tasks.target import Calibration, Policy, Target


class LabelSet(LabelFolder):
    """One teacher's, or people's, answers to one task over the store's images.

    Raises:
        ValueError: its set.json is broken, or is of another set than its folder says; names the field.
    """

    def _check(self, about: Fields) -> None:
        task = load_task(self.task)
        if task.most_classes is not None and len(self.space.names) > task.most_classes:
            most = f"must be at most {task.most_classes:,} classes for {self.task}"
            raise about.object("space").error("names", most, list(self.space.names))
        self._target = task.target
        self._needed = {f.name for f in fields(self._target) if f.default is MISSING}
        self._columns = columns_of(self._target)
        kept = {k: asdict(c) for k, c in self._columns.items()}
        if about.object("columns").value != as_json(kept):
            raise about.error("columns", f"must be those of this polyteach ({', '.join(kept)})", about.value["columns"])

    @cached_property
    def schema(self) -> pa.Schema:
        """Arrow schema of the parts; units and scales are in the fields' metadata."""
        head = [("id", pa.string()), ("state", pa.string()), ("reason", pa.string())]
        own = [
            pa.field(
                k,
                arrow_type(c),
                metadata={"kind": c.kind, "dtype": c.dtype, "scale": repr(c.scale), "unit": c.unit},
            )
            for k, c in self._columns.items()
        ]
        return pa.schema([*head, *own])

    def kinds(self) -> dict[str, str]:
        """How each column of the target is kept; see `Column`."""
        return {name: how.kind for name, how in self._columns.items()}

    def write(self, part: int, ids: Sequence[str], answers: Sequence[Answer]) -> None:
        """Write a whole part atomically: for each image a target, the reason of its failure, or None where absent.

        Raises:
            ValueError: another number of answers than ids; an answer of another type or outside its dtype's range.
        """
        self.write_encoded(part, ids, [self.encode(a) for a in answers])

    def encode(self, answer: Answer) -> dict[str, Any]:
        """A row of the part as `write_encoded` takes it, compressed: a small share of what the target holds.

        Raises:
            ValueError: an answer of another type or outside its dtype's range.
        """
        if answer is not None and not isinstance(answer, str) and type(answer) is not self._target:
            raise ValueError(
                f"label set {self.task}/{self.name} keeps {self._target.__name__}, not {type(answer).__name__}"
            )
        state = LABELLED if isinstance(answer, Target) else FAILED if isinstance(answer, str) else ABSENT
        row: dict[str, Any] = {"state": state, "reason": answer if isinstance(answer, str) else None}
        for name, how in self._columns.items():
            value = getattr(answer, name) if isinstance(answer, Target) else None
            row[name] = None if value is None else encode(value, how)
        return row

    def write_encoded(self, part: int, ids: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
        """As `write`, of what `encode` made of the answers.

        Raises:
            ValueError: another number of rows than ids.
        """
        if len(ids) != len(rows):
            raise ValueError(f"{len(rows)} answers for {len(ids)} images in {self.path / part_name(part)}")
        columns: dict[str, Any] = {"id": list(ids)}
        for name in ("state", "reason", *self._columns):
            columns[name] = [row[name] for row in rows]
        raw = [k for k, c in self._columns.items() if c.kind == "map"]
        folder = self.store.own("labels", self.task, self.name)
        write_part(folder / part_name(part), pa.table(columns, schema=self.schema), raw=raw)

    def read(self, part: int, rows: Sequence[int] | None = None) -> list[Answer]:
        """The answers of a part in the images' order, or those at positions `rows`.

        Raises:
            ValueError: the part is missing or broken, or a target is unfit (`fitted`); names the file.
        """
        table, images = self.table(part, rows), self.store.sizes(part, rows)
        return [self.sound(part, image, a) for image, a in zip(images, self.fitted(table, images), strict=True)]

    def sound(self, part: int, image: ImageRow, answer: Answer | Unfit) -> Answer:
        """What `fitted` gave, of an image of that part, where it is fit.

        Raises:
            ValueError: it is not; names the file and the image, and says what to do.
        """
        if isinstance(answer, Unfit):
            raise ValueError(
                f"{self.path / part_name(part)}: target of {image.id!r}: {answer}. Nothing is learned from what is "
                f"broken. See all of it with: polyteach store check {self.store.path}, and take it out with: polyteach "
                f"store repair {self.store.path}"
            ) from answer
        return answer

    def table(self, part: int, rows: Sequence[int] | None = None) -> pa.Table:
        """The answers of a part, or those at positions `rows`, still encoded: small enough to be kept in memory.

        Raises:
            ValueError: the part is missing or broken; names the file.
        """
        return read_part(self.path / part_name(part), None, rows, self.store.most, self.schema)

    def answers(self, table: pa.Table) -> list[Answer]:
        """Decode rows of `table`, whatever images they are of.

        Raises:
            ValueError: a target that cannot be decoded, or has a map of more cells than images may have pixels.
        """
        columns = _chunks(table)
        return [self._answer(columns, i, self.store.limits.max_pixels) for i in range(table.num_rows)]

    def fitted(self, table: pa.Table, images: Sequence[ImageRow]) -> Iterator[Answer | Unfit]:
        """Decode rows of `table`, each of which is of one of `images`: by the one rule of `store check` and of all that
        learns from labels.

        A target that is none of its image is an `Unfit` that says why: it is of another image, it cannot be decoded,
        its maps are larger than `room` allows, or it is not what `Task.validate` asks for.

        Raises:
            ValueError: another number of images than rows.
        """
        if table.num_rows != len(images):
            raise ValueError(f"{self.path} has a part of {table.num_rows} rows for {len(images)} images")
        columns = _chunks(table)
        task = load_task(self.task)
        ids = columns["id"].to_pylist()
        for i, image in enumerate(images):
            size = (image.height, image.width)
            try:
                if ids[i] != image.id:
                    raise ValueError(f"it is of image {ids[i]!r}")
                answer = self._answer(columns, i, room(size, self.store.limits))
                if isinstance(answer, Target):
                    task.validate(answer, size, self.space)
            except MemoryError:
                yield Unfit("memory is not enough to decode it")
            except Exception as e:  # whatever a stranger's bytes make the decoders raise
                yield Unfit(f"{e}" or type(e).__name__)
            else:
                yield answer

    def calibration_record(self) -> dict[str, Any] | None:
        """As `LabelFolder.calibration_record`; also refused is what this task has no use for."""
        about, fitted = super().calibration_record(), load_task(self.task).calibrates
        odd = about is not None and (not fitted or ("shift" not in fitted and about["shift"] != 0))
        if odd:
            what = f"{', '.join(fitted)} alone" if fitted else "nothing"
            raise ValueError(
                f"{self.path / CALIBRATION}: {what} of {self.task} can be calibrated. Take the file away, or make it "
                f"again: polyteach store calibrate {self.store.path} --labels {self.name}"
            )
        return about

    @cached_property
    def _calibration(self) -> Calibration | None:
        return self.calibration()

    def calibrated(self, answer: Target, policy: Policy) -> Target:
        """A target as training takes it: with calibrated probabilities where the set has a calibration."""
        if self._calibration is None or not policy.calibrated:
            return answer
        target: Target = load_task(self.task).calibrated(answer, self._calibration)
        return target

    def statistics(self, score: float = 0.5, sample: int = 4096) -> tuple[int, int, dict[str, float]]:
        """Images labelled, images failed, and the task's statistics averaged over the first `sample` labelled images.

        score: the threshold that the statistics are about.
        """
        task, policy = load_task(self.task), Policy(score=score)
        total = failed = seen = 0
        sums: dict[str, float] = {}
        states = self.every_state()
        parts = self.parts()

        def look(part: int) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
            return states.among(part, (LABELLED,)), states.among(part, (FAILED,))

        for part, (good, bad) in zip(parts, several(look, parts), strict=True):
            total += int(good.sum())
            failed += int(bad.sum())
            chosen = np.flatnonzero(good)[: max(sample - seen, 0)].tolist()
            for target in self.read(part, chosen) if chosen else ():
                assert isinstance(target, Target)
                seen += 1
                for key, value in task.statistics(self.calibrated(target, policy), policy).items():
                    sums[key] = sums.get(key, 0.0) + value
        states.save()
        return total, failed, {k: v / seen for k, v in sums.items()}

    def spread(self, most: int = 4096) -> Iterator[Target]:
        """At most `most` of the targets, by row groups from all over the set in an order that is always the same.

        One row group of every part, then another of every part, and so on; a target is decoded when it is asked for.
        """
        states, left = self.every_state(), most
        parts: list[int] = np.random.default_rng(0).permutation(self.parts()).tolist()
        turn = 0
        while parts:
            for part in list(parts):
                at = np.flatnonzero(states.among(part, (LABELLED,)))
                groups = np.random.default_rng(part).permutation(np.unique(at // ROW_GROUP))
                if turn + 1 >= len(groups):
                    parts.remove(part)
                if not len(groups):
                    continue
                rows = at[at // ROW_GROUP == groups[turn]][:left].tolist()
                images = self.store.sizes(part, rows)
                for image, found in zip(images, self.fitted(self.table(part, rows), images), strict=True):
                    answer = self.sound(part, image, found)
                    if isinstance(answer, Target):
                        yield answer
                left -= len(rows)
                if not left:
                    return
            turn += 1

    def doubt(self, policy: Policy, most: int = 4096) -> str:
        """Why these labels can hardly teach anything, from at most `most` of them; see `why_useless`."""
        taught = (self.calibrated(target, policy) for target in self.spread(most))
        return why_useless(self.task, self.space, policy, taught)

    def salvaged(self, part: int) -> Iterator[tuple[str, Answer]]:
        """(id, answer) of the rows of a part that can still be read and decoded, whatever is wrong with the others."""
        for _, row in salvaged(self.path / part_name(part), self.schema, LOOKED_AT * self.store.part_size):
            try:
                id, state = row["id"][0].as_py(), row["state"][0].as_py()
                answer = self._answer(row, 0, self.store.limits.max_pixels)
            except Exception:  # whatever broken bytes make a decoder raise
                continue
            if id is not None and state in (LABELLED, ABSENT, FAILED):
                yield id, answer

    def _answer(self, columns: dict[str, pa.Array], row: int, most: int) -> Answer:
        state = columns["state"][row].as_py()
        if state == FAILED:
            return str(columns["reason"][row].as_py())
        if state == ABSENT:
            return None
        if state != LABELLED:
            raise ValueError(f"state {state!r} is none of {LABELLED}, {ABSENT}, {FAILED}")
        values: dict[str, Tensor | None] = {}
        for name, how in self._columns.items():
            kept = columns[name][row]
            try:
                values[name] = decode(stored_value(kept, how), how, most) if kept.is_valid else None
            except ValueError as e:
                raise ValueError(f"{name}: {e}") from e
            if values[name] is None and name in self._needed:
                raise ValueError(f"{name} is missing")
        return self._target(**values)


def _chunks(table: pa.Table) -> dict[str, pa.Array]:
    """Columns by name, each in one piece: never through Python's lists, which would cost more than all the rest."""
    found = dict(zip(table.column_names, table.itercolumns(), strict=True))
    return {k: c.chunk(0) if c.num_chunks == 1 else c.combine_chunks() for k, c in found.items()}
