"""A verb is added by its file alone: the command line, its help and Python find it."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import polyteach
from polyteach.verbs import load_verb, verbs

VERB = '''"""a store -> how many images it has"""

from pathlib import Path

import tyro

from polyteach.ground.options import Hardware, grouped


@grouped
def count_images(
    store: tyro.conf.Positional[str | Path], *, twice: bool = False, hardware: Hardware = Hardware()
) -> int:
    """Count the images of a store.

    Args:
        store: the store's folder.
        twice: count each of them twice.

    Examples:
        polyteach count-images store
    """
    from polyteach.store import Store
    from polyteach.ground.texts import say

    found = Store.open(store)
    images = sum(map(found.count, found.parts())) * (2 if twice else 1)
    say(f"{images} images on {hardware.device} with {hardware.workers} workers")
    return images


def status(images: int) -> int:
    return 0 if images else 7
'''


@pytest.fixture
def package(tmp_path):
    """A copy of the package with one file more."""
    source = Path(polyteach.__file__).parent
    shutil.copytree(source, tmp_path / "polyteach", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "polyteach" / "verbs" / "count_images.py").write_text(VERB)
    return tmp_path


def test_a_new_verb_is_one_file(package, photographs):
    store = polyteach.ingest(photographs, package / "store", progress=False)

    def run(*words):
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=package, capture_output=True, text=True, check=False)

    assert re.search("count-images +a store -> how many images it has\n", run("-m", "polyteach", "--help").stdout)
    help = run("-m", "polyteach", "count-images", "--help").stdout
    assert "count each of them twice" in help
    assert "--workers INT" in help
    counted = run("-m", "polyteach", "count-images", str(store.path), "--twice", "--workers", "3")
    assert (counted.returncode, counted.stderr) == (0, "12 images on auto with 3 workers\n")
    refused = run("-m", "polyteach", "count-images", str(store.path), "--workers", "-3")
    assert (refused.returncode, refused.stderr) == (2, "polyteach count-images: workers must be at least 0; got -3\n")
    python = f"import polyteach; print(polyteach.count_images({str(store.path)!r}, device='cpu'))"
    assert run("-c", python).stdout == "6\n"


def test_every_verb_is_found_by_its_file_and_explains_its_options():
    for name in verbs():
        for inner in verbs(name) if name == "store" else [name]:
            verb, status = load_verb(inner, "store" if name == "store" else "")
            assert callable(status)
            told = (inspect.getdoc(verb) or "").partition("Args:")[2]
            assert all(f"\n    {p}: " in told for p in inspect.signature(verb).parameters), inner
