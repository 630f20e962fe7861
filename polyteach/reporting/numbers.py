"""Everything on the page as JSON: report.json. null where nothing was measured."""

from dataclasses import asdict
from typing import Any

from polyteach.reporting.compare import Analysis, Cell, Match, Normalised, label_curves, spending, step_curve
from polyteach.reporting.findings import Findings
from polyteach.reporting.results import PARTS, Run, Test
from polyteach.reporting.sentences import in_short, why_blank


def numbers(f: Findings, notes: list[str]) -> dict[str, Any]:
    """All numbers; notes: what the page says before them."""
    return {
        "scratch": f.scratch,
        "oracle": f.oracle,
        "ours": f.ours,
        "representations": f.names,
        "downstream": [asdict(c) for c in f.columns],
        "in_short": in_short(f),
        "notes": notes,
        "tables": [_table(f, t) for t in f.tables],
        "label_curves": [
            {
                "downstream": column,
                "mode": mode,
                "parts": parts,
                "curves": {n: [{"budget": b, **_cell(x)} for b, x in v] for n, v in curves.items()},
            }
            for (column, mode, parts), curves in label_curves(f.runs).items()
        ],
        "compute": {n: [asdict(s) for s in spending([r for r in f.runs if r.name == n])] for n in f.names},
        "runs": [_run(r) for r in f.runs],
    }


def _table(f: Findings, t: Analysis) -> dict[str, Any]:
    g = t.grid
    names = [c.name for c in g.columns]
    best = {c.name: g.best(c, f.oracle) for c in g.columns}
    cells = {n: {c: _cell(x) if (x := g.cells.get((n, c))) else None for c in names} for n in g.rows}
    curves = {n: {c: step_curve(g.runs.get((n, c), []), g.parts) for c in names} for n in g.rows}
    return {
        "mode": g.mode,
        "ours": t.ours,
        "budget": g.budget or "main",
        "parts": g.parts,
        "cells": cells,
        "blanks": why_blank(t),
        "best": {c: {"winner": winner, "ties": ties} for c, (winner, ties) in best.items()},
        "normalised": {n: {c: _normalised(t.scale[n, c]) for c in names} for n in g.rows},
        "normalised_average": {n: _normalised(t.averages[n]) for n in g.rows},
        "normalised_average_of_scored": {"tasks": t.scored} | {n: _normalised(t.partial[n]) for n in g.rows},
        "wins": [_match(m) for m in t.matches],
        "validation_by_steps": curves if g.parts in PARTS else {},
    }


def _match(m: Match) -> dict[str, Any]:
    return {
        "against": m.against,
        "rivals": m.rival,
        "wins": m.count("win"),
        "ties": m.count("tie"),
        "losses": m.count("loss"),
        "undecided": m.count(None),
        "of": len(m.differences),
        "differences": {c: asdict(d) for c, d in m.differences.items()},
        "normalised_average": asdict(m.average) if m.average else None,
    }


def _cell(x: Cell) -> dict[str, Any]:
    return {
        "mean": x.mean,
        "spread": x.spread,
        "interval": x.interval,
        "tests": x.values,
        "pretrainings": x.origins,
        "parts": x.parts,
        "validation": x.validation,
        "images": x.images,
        "other_metrics": x.others,
    }


def _normalised(x: Normalised) -> dict[str, Any]:
    return {"value": x.value, "interval": x.interval, "why": x.why}


def _run(r: Run) -> dict[str, Any]:
    results = [
        {
            "parts": x.parts,
            "chosen": x.chosen,
            "sweep": [asdict(t) for t in x.sweep],
            "tests": [_test(t) for t in x.tests],
        }
        for x in r.results
    ]
    plain = (
        "date",
        "command",
        "machine",
        "pretraining_command",
        "name",
        "init",
        "backbone",
        "sha256",
        "pretraining_seed",
        "budget",
        "mode",
    )
    about = {"file": str(r.file), "polyteach": r.version} | {k: getattr(r, k) for k in plain}
    return about | {"downstream": r.downstream.name, "images": r.budget_images, "results": results}


def _test(t: Test) -> dict[str, Any]:
    about = {"seed": t.seed, "scores": t.scores, "drawn": t.drawn if len(t.resamples) else None}
    return about | {"curve": t.curve, "unreadable": t.unreadable}
