"""The shape of the code: imports go down, no stage names a task, everything public says what it is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import polyteach
from polyteach.tasks import NO_TASKS, all_tasks

ROOT = Path(polyteach.__file__).parent
BELOW = ("tasks", "teachers", "datasets", "writers", "ground")
"""Rooms that may name a task."""
STAGES = sorted(f for f in ROOT.rglob("*.py") if f.relative_to(ROOT).parts[0] not in BELOW and f.name != "_moved.py")
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


SHAPED = {
    "Bool",
    "Float",
    "Float16",
    "Float32",
    "Int",
    "Int16",
    "Int32",
    "Int64",
    "Integer",
    "Num",
    "Shaped",
    "UInt8",
    "UInt16",
}
"""jaxtyping's types, whose second part is a shape."""


def quoted(annotation):
    """The texts within an annotation that stand for types: not a shape, not a value of Literal."""
    if isinstance(annotation, ast.Constant):
        return [annotation.value] if isinstance(annotation.value, str) else []
    if isinstance(annotation, ast.Subscript):
        name, inner = ast.unparse(annotation.value).split(".")[-1], annotation.slice
        if name == "Literal":
            return []
        first = name in SHAPED or name == "Annotated"
        return quoted(inner.elts[0] if first and isinstance(inner, ast.Tuple) else inner)
    return [text for child in ast.iter_child_nodes(annotation) for text in quoted(child)]


def annotations(tree):
    """Every annotation of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            a = node.args
            every = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
            yield from (arg.annotation for arg in every if arg is not None and arg.annotation is not None)
            if node.returns is not None:
                yield node.returns
        elif isinstance(node, ast.AnnAssign):
            yield node.annotation


def test_what_is_a_quoted_annotation():
    source = """
def f(a: "Tensor", b: list["Plan"], c: Float[Tensor, "B 3"], d: Literal["x"], *e: Float["Tensor", "B"]) -> "g | None":
    h: Annotated[int, "told"] = 1
"""
    assert [t for a in annotations(ast.parse(source)) for t in quoted(a)] == ["Tensor", "Plan", "Tensor", "g | None"]


def unneeded(source):
    """Texts that stand for types and need not: a class that is not complete at that line has no other name there."""
    tree = ast.parse(source)
    ends = {n.name: n.end_lineno for n in tree.body if isinstance(n, ast.ClassDef)}
    return [text for a in annotations(tree) for text in quoted(a) if ends.get(text, 0) < a.lineno]


def test_which_quotes_python_needs():
    source = 'class A:\n    def a(self, b: "B", c: "int") -> "A": ...\nclass B: ...\ndef f(a: "A", b: list["B"]): ...'
    assert sorted(unneeded(source)) == ["A", "B", "int"]


@pytest.mark.parametrize("file", MODULES, ids=relative)
def test_annotations_are_not_strings(file):
    """jaxtyping's shapes are checked only where annotations are objects."""
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert not any(n.module == "__future__" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom))
    doors = [n for n in tree.body if isinstance(n, ast.FunctionDef)] if relative(file).startswith("verbs/") else []
    # a door does not import what it returns, where that needs torch
    returned = {text for n in doors if n.returns is not None for text in quoted(n.returns)}
    assert not set(unneeded(source)) - returned


def test_tasks_are_found_by_their_file():
    files = {f.stem for f in (ROOT / "tasks").glob("[a-z]*.py")} - set(NO_TASKS)
    assert set(all_tasks()) == files


def test_an_unknown_task_is_an_error_that_lists_the_known_ones():
    from polyteach.tasks import load_task

    with pytest.raises(ValueError, match=r"unknown task 'dept'; there are .*normals.*Did you mean depth"):
        load_task("dept")
