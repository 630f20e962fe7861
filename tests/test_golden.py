"""Seeded runs give the losses that they gave before: see golden.py, which writes them anew where a change was meant."""

import json

import pytest

from tests import golden

KEPT = json.loads(golden.FILE.read_text(encoding="utf-8"))


def test_every_task_has_its_losses():
    assert set(KEPT) == set(golden.runs()), "python -m tests.golden --write"


@pytest.mark.parametrize("name", golden.runs())
def test_losses_are_those_of_before(tmp_path, name):
    differ = golden.different(golden.losses(name, tmp_path), KEPT[name])
    assert not differ, "\n".join(differ)


def test_a_changed_loss_is_seen():
    kept = KEPT["all together"]
    moved = json.loads(json.dumps(kept))
    name = next(iter(moved[1]["losses"]))
    moved[1]["losses"][name] *= 1 + 3 * golden.TOLERANCE
    (said,) = golden.different(moved, kept)
    assert said.startswith(f"2 losses {name}: ")
    assert len(golden.different(moved[:2], kept)) == 1
    moved[1]["losses"][name] = kept[1]["losses"][name] * (1 + golden.TOLERANCE / 3)
    assert golden.different(moved, kept) == []
