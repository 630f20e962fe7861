"""What the pages show is so: code blocks run as they stand, examples are made and read, lists are complete."""

import importlib
import math
import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch

from polyteach.__main__ import main
from polyteach.scene import random_scene, render
from polyteach.store import ImageRow, Store
from polyteach.tasks import all_tasks, load_task
from polyteach.tasks.contract import Space
from tests.conftest import png

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"(?:^`([^`\n]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.S | re.M)
"""A fenced block: the file that a line before it names, if any, its language and its text."""
EXAMPLES = dict(
    section.split("\n", 1)
    for section in (DOCS / "datasets.md").read_text().split("# Every format")[0].split("\n### ")[1:]
)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", (DOCS / "store.md").read_text(), re.S))
def test_blocks_of_the_stores_page_run(block, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    store = Store.create("store")
    scenes = [render(random_scene(i)) for i in range(3)]
    rows = [ImageRow(id=f"{i}.png", height=64, width=96, data=png(s.image)) for i, s in enumerate(scenes)]
    store.write_images(0, rows)
    for name in all_tasks():
        task = load_task(name)
        space = Space(("a", "b", "c"), task.kinds[0])
        labels = store.create_set(name, "t", space, {})
        labels.write(0, [r.id for r in rows], [task.truth(s, space) for s in scenes])
    exec(compile(block, "docs/store.md", "exec"), {})


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_datasets_are_read_as_they_stand(name, tmp_path, monkeypatch, capfd):
    """The files are made, pictures with pixels; the commands are given; and they say what the page says."""
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(EXAMPLES[name])
    for path, _, text in blocks:
        if path:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text)
    tree, said = (text for path, language, text in blocks if language == "text" and not path)
    picture = png(render(random_scene(0, (48, 64))).image)
    for path in tree.split():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(picture)
    (commands,) = (text for _, language, text in blocks if language == "bash")
    for line in commands.splitlines():
        word, *words = shlex.split(line)
        assert word == "polyteach"
        assert main(words) == 0
    lines = capfd.readouterr().err.splitlines()
    for line in said.splitlines():
        assert line in lines
    assert len(Store.open("store").images(0)) == int(re.search(r"store: (\d+) images", said)[1])


def test_every_formats_section_is_its_files_docstring():
    page = (DOCS / "datasets.md").read_text(encoding="utf-8")
    written = runpy.run_path(str(DOCS / "datasets.py"))
    assert written["page"](page) == page, "the page is old; write it anew: python docs/datasets.py"
    from polyteach.datasets import formats

    assert sorted(written["formats"]()) == formats()
    for name in formats():
        text = importlib.import_module(f"polyteach.datasets.{name}").__doc__
        assert text.splitlines()[0] in page.split(f"## `{name}:`")[1]


def column(page, head):
    """The first column's names of the table whose head begins so."""
    lines = page.split(head)[1].splitlines()[2:]
    return [line.split("`")[1] for line in lines[: next(i for i, x in enumerate(lines) if not x.startswith("|"))]]


def test_the_teachers_page_lists_what_there_is():
    from polyteach.teachers import families, load_teacher

    page = (DOCS / "teachers.md").read_text()
    assert sorted(column(page, "| family |")) == sorted(f"{name}:" for name in families())
    with pytest.raises(ValueError, match="unknown packaged model 'nope'; there are") as e:
        load_teacher("packaged:nope")
    listed = re.search(r"there are ([\w, ]+)", str(e.value))[1].split(", ")
    assert column(page, "| `packaged:` | answers") == listed


def test_the_function_on_the_teachers_page_teaches(tmp_path):
    from polyteach.teachers import load_teacher

    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "teachers.md").read_text(), re.S)
    (tmp_path / "mine.py").write_text(block)
    teacher = load_teacher(f"python:{tmp_path / 'mine.py'}:teacher")
    images = [torch.full((3, 20, 30), value, dtype=torch.uint8) for value in (0, 255)]
    dark, bright = (a["classification"].probability.tolist() for a in teacher(images))
    assert (dark, bright) == ([1.0, 0.0], [0.0, 1.0])


def test_the_glossary_tells_each_word_with_an_example():
    text = (DOCS / "glossary.md").read_text()
    entries = [" ".join(x.split()) for x in text.split("\n- ")[1:]]
    words = [re.match(r"\*\*([^*]+)\*\*: ", e)[1] for e in entries]
    assert words == sorted(words, key=str.lower)
    asked = "Objective, Label set, Space, Arm, Cell, Oracle, Target, Store, Part, Policy, Pyramid"
    assert set(asked.split(", ")) < set(words)
    for entry in entries:
        assert "for example, " in entry
        assert entry.endswith(".")


@pytest.mark.parametrize("page", ["datasets.md", "teachers.md", "glossary.md", "store.md", "transfer.md", "trust.md"])
def test_links_lead_somewhere(page):
    text = (DOCS / page).read_text()
    for file, _, anchor in re.findall(r"\]\(([\w./-]+)(#([\w-]+))?\)", text):
        target = DOCS / file
        assert target.exists(), file
        if anchor:
            heads = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in
                     re.findall(r"^#+ (.*)$", target.read_text(), re.M)]  # fmt: skip
            assert anchor in heads


def test_the_bounds_on_the_page_of_trust_are_those_of_the_code():
    from polyteach import files, limits, names, store, student
    from polyteach.datasets import _archive, _files, cifar, nyu
    from polyteach.tasks import contract, detection
    from polyteach.teachers import onnx_models, transformers_models

    page = (DOCS / "trust.md").read_text().split("## Bounds")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", page, re.M))

    def said(start):
        (row,) = (text for what, text in rows.items() if what.startswith(start))
        return [int(n.replace(",", "")) for n in re.findall(r"[\d,]*\d", row)]

    assert said("an image's pixels")[0] == limits.MAX_PIXELS
    side = math.isqrt(contract.MAP)
    assert said("a map") == [side, side]
    assert said("objects") == [detection.MOST_OBJECTS, contract.MOST_VALUES]
    assert said("a part") == [store.MOST_IMAGES, store.UNPACKED // 2**20, store.RATIO]
    assert said("an archive") == [_archive.MEMBERS, _archive.UNPACKED // 2**30, _archive.RATIO]
    assert said("a file of annotations") == [_files.MOST // 2**20, cifar._MOST // 2**20]
    assert said("a student") == [student.MOST_CHANNELS, student.MOST_SIDE]
    assert said("a name") == [names.LONGEST]
    assert said("an image's file") == [limits.BYTES[0] // 2**20]  # and four in words
    assert said("fetching") == [limits.SECONDS]  # and the redirects in words
    assert said("YAML") == [files.YAML_LETTERS, files.YAML_SCALAR, files.YAML_VALUES, files.YAML_DEEP]
    assert said("an ONNX") == [onnx_models.LONGEST]
    named = transformers_models
    assert said("a Hugging Face") == [named.MOST_LAYERS, named.MOST_CLASSES, named.LARGEST]
    assert said("NYU") == [nyu._PICTURES, nyu._BLOCK // 2**20, nyu._LETTERS]
