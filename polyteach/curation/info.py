"""What is in a store: images by split, and what each label set says of them."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from polyteach.ground.storage import total
from polyteach.ground.tables import table, width_of, wrapped
from polyteach.ground.texts import say
from polyteach.store.folder import StoreFolder
from polyteach.store.label_folder import named_sets


def tell(store: str | Path, score: float, as_json: bool) -> None:
    """Print what is in the store at a path, as tables or as JSON. score: threshold of a teacher's answers."""
    about = described(StoreFolder.open(store), score)
    if as_json:
        say(*json.dumps(about, indent=1, ensure_ascii=False).split("\n"), stream=sys.stdout)
    else:
        say(*_shown(str(store), about, width_of(sys.stdout)), stream=sys.stdout)


def _shown(store: str, about: dict[str, Any], width: int) -> list[str]:
    """What `described` says, as lines for a terminal of so many columns."""
    splits = [f"{k or '(no split)'} {v:,}" for k, v in about["splits"].items()]
    lines = [f"{store}: {about['images']:,} images in {about['parts']} parts, {about['bytes']:,} bytes"]
    lines += wrapped(splits, width, "", "splits: ") if splits else []
    lines += [f"{about['rejects']:,} images were refused (rejects/)", ""]
    head = ("label set", "labelled", "absent", "failed", "parts open", "from", "mean over labelled images")
    rows: list[list[str | list[str]]] = []
    for one in about["sets"]:
        means = [f"{k} {v:.3g}" for k, v in one["statistics"].items()]
        if one["empties"]:
            means.append(f"leaves {one['empties']['left']} of {one['empties']['of']} empty images empty")
        if about_it := one["calibration"]:
            means.append(f"calibrated when learned: temperature {about_it['temperature']:.3g}")
            means += [f"shift {about_it['shift']:.3g}"] if about_it["shift"] else []
        counts = [f"{one[k]:,}" for k in ("labelled", "absent", "failed", "open")]
        rows.append([one["set"], *counts, one["teacher"], means])
    lines += table(head, rows, width).split("\n") if rows else ["no label sets yet"]
    for one in about["sets"]:
        if one["idle"]:
            lines += wrapped(f"WARNING: {one['set']} {one['idle']}", width)
        if one["doubt"]:
            lines += wrapped(f"WARNING: {one['set']} can teach hardly anything: {one['doubt']}", width)
    if any(one["held"] for one in about["sets"]):
        from polyteach.loading.held import lines as held_lines  # torch, which told of the sets

        lines += [line for one in about["sets"] for found in one["held"] for line in ["", *held_lines(found, width)]]
    for one in about["sets"]:
        if one["classes"]:
            ranked = sorted(one["classes"].items(), key=lambda x: -x[1])
            shown = [f"{k} {v:,}" for k, v in ranked if v]
            none = [k for k, v in ranked if not v]
            lines += ["", f"{one['set']}, images by class they show:"]
            lines += wrapped(first_ten(shown) or ["none"], width, "  ")
            lines += wrapped(first_ten(none), width, "  ", "in no image: ") if none else []
    return lines


def first_ten(texts: list[str]) -> list[str]:
    """The first ten, and how many there are in all."""
    return [*texts[:10], f"... ({len(texts):,} in all)"] if len(texts) > 10 else texts


def described(store: StoreFolder, score: float = 0.5) -> dict[str, Any]:
    """What `info` prints, as JSON values.

    splits: images by split ("" for none). sets: one dictionary per label set; "open" are parts that are not labelled
    yet, "classes" images by class, "empties" how many of the images in which people found nothing are left empty,
    "calibration" what calibration.json says (null without), "held" how they hold against people's of the same images
    (`loading.held`), "doubt" why the labels can hardly teach anything ("" where they can), "idle" why they would count
    for no image in a training on all sets ("" where they count).
    """
    parts = store.parts()
    splits = Counter(r.split or "" for p in parts for r in store.images(p, data=False))
    sets = []
    if named_sets(store):
        # what targets say only their tasks know, which need torch
        from polyteach.curation.label_info import described_sets

        sets = described_sets(store, parts, score)
    size = total(store.path, "part-*.parquet")
    return {
        "images": sum(splits.values()), "parts": len(parts), "bytes": size, "splits": dict(sorted(splits.items())),
        "rejects": len(store.rejects()), "sets": sorted(sets, key=lambda s: str(s["set"])),
    }  # fmt: skip
