"""The result as tables: blocks of a page, which become Markdown, or lines for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from polyteach.ground.tables import table, wrapped
from polyteach.reporting.blocks import Block, Cell, Points, Section, Table, Text

FEW = 6
"""Rows at either end of a long table on a terminal."""


def blocks(result: Mapping[str, Any], whole: bool) -> list[Block]:
    """The page. whole: everything; else what a terminal has room for."""
    out: list[Block] = [_about(result)] if whole else []
    for question in result["questions"]:
        for answers in question["answers"]:
            out.append(_section(question, answers, whole))
        out += [_difference(question, d) for d in question["differences"]]
    return out


def _about(result: Mapping[str, Any]) -> Block:
    seen = f"{result['images']:,} images"
    if result["images"] < result["of"]:
        seen = f"{result['images']:,} of {result['of']:,} images, drawn at random (seed {result['seed']})"
    split = f", of split {', '.join(result['split'])}" if result["split"] else ""
    items = [f"{seen} of {result['store']}{split}", f"Made by: {result['command']} (polyteach {result['polyteach']})"]
    return Section(
        "What was asked", (Points((*items, *result["notes"], *(f"WARNING: {w}" for w in result["warnings"]))),)
    )


def _section(question: Mapping[str, Any], answers: Mapping[str, Any], whole: bool) -> Section:
    lower = question["lower_is_better"]
    inside: list[Block] = []
    seen = [f"{answers['images']:,} images"]
    seen += [f"{f['images']:,} without an answer: {f['reason']} ({f['first']})" for f in answers["failed"]]
    seen += [f"{answers['without']:,} that it has no label of"] if answers["without"] else []
    seen += [f"{question['skipped']:,} of classes that are not compared"] if question["skipped"] else []
    inside.append(Text("; ".join(seen)))
    rows = [
        (f"{name}{' (less is better)' if name in lower else ''}",
         [_number(s["value"]), _span(s), *([_number(question["constant"][name])] if question["constant"] else [])])
        for name, s in answers["scores"].items()
    ]  # fmt: skip
    head = ["score", "value", "95 % interval", *(["a constant answer"] if question["constant"] else [])]
    inside.append(_table("Scores", head, rows, (2,)))
    inside += _by_class(answers["classes"], whole)
    if answers["sizes"]:
        head = ["size", *next(iter(answers["sizes"].values()))]
        rows = [(k, [_number(v[c]) for c in head[1:]]) for k, v in answers["sizes"].items()]
        inside.append(_table("By size (small: below 32² pixels, large: above 96²)", head, rows))
    inside += _reliability(answers["reliability"], whole)
    inside += _confusion(answers["confusion"], whole)
    if answers["worst"]:
        shown = answers["worst"] if whole else answers["worst"][:FEW]
        rows = [(w["id"], [w["what"], *([w["picture"] or "-"] if whole else [])]) for w in shown]
        head = ["image", "what is wrong", *(["picture"] if whole else [])]
        inside.append(_table("The worst images", head, rows, (1, 2)))
    return Section(f"{answers['what']} against {question['truth']}", tuple(inside))


def _by_class(classes: Mapping[str, Mapping[str, Any]], whole: bool) -> list[Block]:
    if not classes:
        return []
    columns = list(dict.fromkeys(k for v in classes.values() for k in v))
    by = columns[-1]
    ranked = sorted(classes, key=lambda k: (classes[k].get(by) is None, classes[k].get(by)))
    which = "By class"
    if not whole and len(ranked) > 2 * FEW:
        which = f"By class: the {FEW} worst and the {FEW} best of {len(ranked)} by {by}"
        ranked = [*ranked[:FEW], *[k for k in ranked if classes[k].get(by) is not None][-FEW:]]
    rows = [(k, [_number(classes[k].get(c)) for c in columns]) for k in ranked]
    return [_table(which, ["class", *columns], rows)]


def _reliability(found: Mapping[str, Any] | None, whole: bool) -> list[Block]:
    if found is None:
        return []
    said = f"expected calibration error {100 * found['ece']:.1f} % over {found['answers']:,} answers"
    if not whole:
        return [Text(f"Confidence: {said}")]
    rows = [
        (f"{b['low']:.1f} to {b['high']:.1f}",
         [f"{b['answers']:,}", f"{100 * b['confidence']:.1f}", f"{100 * b['right']:.1f}"])
        for b in found["bins"]
    ]  # fmt: skip
    return [
        _table(f"Confidence and how often it is right: {said}", ["confidence", "answers", "said %", "right %"], rows)
    ]


def _confusion(found: Mapping[str, Any] | None, whole: bool) -> list[Block]:
    if found is None or not found["pairs"]:
        return []
    pairs = found["pairs"] if whole else found["pairs"][:FEW]
    rows = [(right, [said, f"{n:,}", f"{100 * share:.1f}"]) for right, said, n, share in pairs]
    out: list[Block] = [_table("Most confused", ["is", "said", "times", "% of those that are"], rows, (1,))]
    if whole and found["matrix"] is not None:
        cells = [(name, [f"{n:,}" for n in row]) for name, row in zip(found["names"], found["matrix"], strict=True)]
        out.append(_table("Confusion: rows are what is right, columns what was said", ["", *found["names"]], cells))
    return out


def _difference(question: Mapping[str, Any], found: Mapping[str, Any]) -> Section:
    heading = f"{found['first']} less {found['second']}, against {question['truth']}"
    if not found["images"]:
        return Section(heading, (Text("no image that all answered"),))
    rows = [(name, [_number(s["value"], "+"), _span(s, "+"), _verdict(s)]) for name, s in found["scores"].items()]
    about = Text(f"on the {found['images']:,} images that all answered")
    return Section(
        heading, (about, _table("Differences", ["score", "difference", "95 % interval", "finding"], rows, (2, 3)))
    )


def _verdict(span: Mapping[str, float | None]) -> str:
    if span["low"] is None or span["high"] is None:
        return ""
    return "differs" if span["low"] > 0 or span["high"] < 0 else "may be chance"


def _span(span: Mapping[str, float | None], sign: str = "") -> str:
    if span["low"] is None:
        return "-"
    return f"{_number(span['low'], sign)} to {_number(span['high'], sign)}"


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    if isinstance(value, int) or (value == int(value) and abs(value) >= 1000):
        return f"{int(value):{sign},}"
    return f"{value:{sign}.2f}" if abs(value) >= 10 or not value else f"{value:{sign}.4g}"


def _table(
    caption: str, head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], words: tuple[int, ...] = ()
) -> Table:
    return Table(caption, tuple(head), tuple((name, tuple(map(Cell, cells))) for name, cells in rows), words)


def terminal(page: Sequence[Block], width: int) -> list[str]:
    """Lines of at most `width` columns."""
    out: list[str] = []
    for block in page:
        out += [""] if out else []
        if isinstance(block, Section):
            out += [*wrapped(block.heading, width), *(f"  {line}" for line in terminal(block.blocks, width - 2))]
        elif isinstance(block, Table):
            out += wrapped(block.caption, width) if block.caption else []
            out += table(block.columns, [[name, *(c.text for c in cells)] for name, cells in block.rows], width).split(
                "\n"
            )
        elif isinstance(block, Text):
            out += wrapped(block.text, width)
    return [line.rstrip() for line in out]
