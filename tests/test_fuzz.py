"""Some seconds of fuzzing (`tests/fuzz.py`, of which the longer run is by hand): the same cases every time."""

import re
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import fuzz, mutations

CASES = {
    **dict.fromkeys(("images", "tables"), 60),
    **dict.fromkeys(("onnx descriptions", "list", "parquet", "webdataset", "tar"), 30),
    **dict.fromkeys(("imagenet devkit", "store descriptions", "store images", "store labels"), 6),
}
"""Of quick targets more, of slow ones less than the others' `FEW`."""
FEW = 12


@pytest.fixture(scope="module", params=[*fuzz.TARGETS])
def bench(request, tmp_path_factory):
    """A target with its valid files."""
    place = tmp_path_factory.mktemp("fuzz")
    return fuzz.Bench(fuzz.TARGETS[request.param], place / "in" / "bench")


def test_changed_files_are_read_or_refused(bench):
    """And nothing else comes of them; the valid ones give what they gave before."""

    @settings(
        max_examples=CASES.get(bench.target.name, FEW),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    # by its number, and not drawn by draw: what a case draws hangs on sizes of files that the one before has changed
    @given(st.integers(0, 2**32 - 1))
    def some(number):
        bench.case(Random(number))

    some()
    bench.whole()


def test_what_should_not_come_is_noticed(tmp_path):
    """Another error, one that names no file, memory, an image that is lost, and a file that appears elsewhere."""

    def make(folder):
        for name in ("a.txt", "b.txt"):
            (folder / name).write_text("one\n")

    def noticed(read, match, **more):
        target = fuzz.Target("x", make, read, **more)
        place = tmp_path / re.sub(r"\W", "", match) / "in"
        bench = fuzz.Bench(target, place)
        with pytest.raises(fuzz.Bad, match=match):
            [bench.case(Random(k)) for k in range(50)]

    def texts(folder):
        return [f.read_bytes() if f.is_file() and f.stat().st_size < 99 else b"" for f in sorted(folder.glob("*.txt"))]

    def when_changed(act):
        def read(folder):
            if texts(folder) != [b"one\n", b"one\n"]:
                act(folder)
            return (2,)

        return read

    def raises(error):
        def act(folder):
            raise error

        return act

    noticed(when_changed(raises(KeyError("x"))), "KeyError")
    noticed(when_changed(raises(ValueError("it is broken"))), "names no file")
    noticed(when_changed(lambda folder: bytearray(2 * fuzz.MEMORY)), "MemoryError")
    noticed(when_changed(lambda folder: (folder.parent / "new").write_text("x")), "wrote .*new")
    noticed(lambda folder: (sum(t == b"one\n" for t in texts(folder)) * 2,), "images are lost", alone=".")


def test_every_case_comes_again_by_its_number(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, 2, {"b": "c"}]}')
    before = (tmp_path / "a.json").read_bytes()
    found = []
    for _ in range(2):
        changed = []
        for k in range(40):
            (tmp_path / "a.json").unlink(missing_ok=True)
            (tmp_path / "a.json").write_bytes(before)
            changed.append(mutations.change(Random(f"x {k}"), tmp_path / "a.json", tmp_path / "ran"))
            if (tmp_path / "a.json").is_dir():
                (tmp_path / "a.json").rmdir()
        found.append(changed)
    assert found[0] == found[1]
    assert len(set(found[0])) > 30
