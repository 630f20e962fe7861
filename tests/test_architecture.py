"""The shape of the code: imports go down, no stage names a task, everything public says what it is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import polyteach
from polyteach.tasks import all_tasks

ROOT = Path(polyteach.__file__).parent
GROUND = {"geometry.py", "layers.py", "scene.py", "images.py", "files.py"}
"""Below the tasks: they may speak of depths and normals."""
STAGES = sorted(f for f in ROOT.glob("*.py") if f.name not in GROUND)
MODULES = sorted(ROOT.rglob("*.py"))
PLAIN_BASES = {"ABC", "Generic", "NamedTuple"}
"""Bases whose methods, if they have any, say nothing about what a subclass's method does."""


def relative(file):
    return str(file.relative_to(ROOT))


def documented(node):
    return ast.get_docstring(node) is not None


def names_and_strings(source):
    """Identifiers and string constants of a module, docstrings (also those of constants and fields) left out."""
    tree = ast.parse(source)
    doc = {
        id(n.value)
        for n in ast.walk(tree)
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) and isinstance(n.value.value, str)
    }
    out = set()
    for n in ast.walk(tree):
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in doc:
            out.add(n.value)
        if isinstance(n, ast.ImportFrom) and n.module:
            out |= set(n.module.split("."))
        for attribute in ("id", "attr", "arg", "name"):
            name = getattr(n, attribute, None)
            if isinstance(name, str):
                out |= set(name.split("."))
    return out


def test_what_is_a_name_and_what_is_not():
    source = '"""depth"""\nimport polyteach.tasks.normals\ndef f(segmentation="boxes"):\n    """depth"""\n    x.y = 1'
    assert {"normals", "segmentation", "boxes", "x", "y", "f"} <= names_and_strings(source)
    assert "depth" not in names_and_strings(source)


@pytest.mark.parametrize("file", STAGES, ids=relative)
def test_no_stage_names_a_task(file):
    known = names_and_strings(file.read_text(encoding="utf-8")) & set(all_tasks())
    assert not known, f"{relative(file)} knows {known}; what differs between tasks belongs in tasks/"


def test_imports_go_down_only():
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("file", MODULES, ids=relative)
def test_everything_public_says_what_it_is(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    missing = [] if documented(tree) else ["the module"]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            missing += [] if documented(node) else [node.name]
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            bases = {ast.unparse(b).split("[")[0] for b in node.bases}
            if bases <= PLAIN_BASES:  # otherwise a method without docstring keeps the contract's
                missing += [
                    f"{node.name}.{n.name}"
                    for n in node.body
                    if isinstance(n, ast.FunctionDef) and not n.name.startswith("_") and not documented(n)
                ]
    assert not missing, f"{relative(file)}: no docstring for {', '.join(missing)}"


@pytest.mark.parametrize("file", MODULES, ids=relative)
def test_annotations_are_not_strings(file):
    """jaxtyping's shapes are checked only where annotations are objects."""
    imports = [n for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)]
    assert not any(n.module == "__future__" for n in imports)


def test_tasks_are_found_by_their_file():
    files = {f.stem for f in (ROOT / "tasks").glob("*.py")} - {"__init__", "contract"}
    assert set(all_tasks()) == files


def test_an_unknown_task_is_an_error_that_lists_the_known_ones():
    from polyteach.tasks import load_task

    with pytest.raises(ValueError, match=r"unknown task 'dept'; there are .*normals.*Did you mean depth"):
        load_task("dept")
