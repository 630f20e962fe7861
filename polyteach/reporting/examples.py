"""Example images that transfers drew: those of one test image stand together."""

import io
from pathlib import Path, PurePosixPath

from PIL import Image

from polyteach.reporting.blocks import Block, Images, Section, Text
from polyteach.reporting.findings import Findings
from polyteach.reporting.formats import natural
from polyteach.reporting.results import PARTS

Examples = dict[str, dict[str, dict[str, tuple[str, bytes]]]]
"""Downstream name -> file name -> representation -> (media type, bytes)."""
KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
MOST_BYTES, MOST_WIDE = 150_000, 960
"""A larger image is shrunk on the page; pixels for the width."""


def read_examples(f: Findings, most: int) -> tuple[Examples, list[str]]:
    """The examples of every task, those of one file name together, and remarks on what is not there.

    Transfers that drew an image for either kind of parts show the one that did better on validation images.

    Raises:
        ValueError: what a transfer.json calls an example is no image.
    """
    out: Examples = {}
    notes = []
    for c in f.columns if most else ():
        own = {n: _files(f, n, c.name) for n in f.names}
        if len({len(files) for files in own.values() if files}) > 1:
            notes.append(f"Examples of {c.name}: runs drew different numbers, so one name may be different images.")
        for e in sorted({e for files in own.values() for e in files}, key=natural)[:most]:
            for name, files in own.items():
                if e not in files:
                    continue
                if files[e].is_file():
                    out.setdefault(c.name, {}).setdefault(e, {})[name] = _read(files[e])
                else:
                    notes.append(f"A drawing is not there and left out: {files[e]}.")
    return out, notes


def _files(f: Findings, name: str, column: str) -> dict[str, Path]:
    """Name -> file of one representation's examples of one task, from the first table that has any."""
    for t in f.tables:
        run = next((r for r in t.grid.runs.get((name, column), []) if r.examples), None)
        if run is None:
            continue
        better = [x.grid.cells.get((name, column)) for x in f.tables if x.grid.runs is t.grid.runs]
        parts = better[-1].parts if better[-1] else ""
        found: dict[str, Path] = {}
        for e in run.examples:
            of, dash, rest = PurePosixPath(e).name.partition("-")
            key = rest if dash and of in PARTS else PurePosixPath(e).name
            if key not in found or of == parts:
                found[key] = run.file.parent / e
        return found
    return {}


def _read(file: Path) -> tuple[str, bytes]:
    """An image's media type and bytes; a large one is shrunk, so that the page stays small."""
    data = file.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=list(KINDS)) as image:
            image.load()
            kind = KINDS[str(image.format)]
            if len(data) > MOST_BYTES or image.width > MOST_WIDE:
                small = image.convert("RGB")
                small.thumbnail((MOST_WIDE, MOST_WIDE))
                packed = io.BytesIO()
                small.save(packed, "JPEG", quality=85)
                kind, data = "image/jpeg", packed.getvalue()
    except (OSError, SyntaxError, Image.DecompressionBombError) as e:
        raise ValueError(f"{file} (in examples of its transfer.json) is not a PNG, JPEG or WebP image: {e}") from e
    return kind, data


def blocks(f: Findings, examples: Examples) -> tuple[Block, ...]:
    """The examples on the page: one open and the others folded, task by task."""
    out: list[Block] = [Text("Each drawing: the image, the truth, the prediction, from left to right.")]
    for column, files in examples.items():
        first, *more = (
            Images(tuple((n, f"{n}, {column}, {e}", *found[n]) for n in f.names if n in found))
            for e, found in files.items()
        )
        folded = (Section(f"More of {column}", tuple(more), folded=True),) if more else ()
        out.append(Section(column, (first, *folded)))
    return tuple(out)
