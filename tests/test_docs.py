"""What the pages show is so: code blocks run as they stand, examples are made and read, lists are complete."""

import contextlib
import importlib
import io
import math
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from polyteach.__main__ import main
from polyteach.ground.scene import random_scene, render
from polyteach.store import ImageRow, Store
from polyteach.tasks import all_tasks, load_task
from polyteach.tasks.contract import Space
from tests.worlds import answer_to, png

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "guide"
BLOCK = re.compile(r"(?:^`([^`\n]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.S | re.M)
"""A fenced block: the file that a line before it names, if any, its language and its text."""
EXAMPLES = dict(
    section.split("\n", 1)
    for section in (DOCS / "datasets.md").read_text().split("## Every format")[0].split("\n### ")[1:]
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
        labels.write(0, [r.id for r in rows], [answer_to(task, s, space) for s in scenes])
    exec(compile(block, "docs/guide/store.md", "exec"), {})


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
    assert written["page"](page) == page, "the page is old; write it anew: python docs/guide/datasets.py"
    from polyteach.datasets import formats

    assert sorted(written["formats"]()) == formats()
    for name in formats():
        text = importlib.import_module(f"polyteach.datasets.{name.replace('-', '_')}").__doc__
        assert text.splitlines()[0] in page.split(f"### `{name}:`")[1]


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


def given(line):
    """What a line of a page's commands prints, on either stream."""
    if not line.startswith("polyteach "):
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream), contextlib.suppress(SystemExit):
        main(shlex.split(line)[1:])
    return stream.getvalue()


@pytest.mark.slow
@pytest.mark.timeout(900)  # half a minute on a machine that does nothing else
def test_errors_on_the_page_of_troubleshooting_are_printed_so(tmp_path, monkeypatch):
    """Every command is given in the page's order; what stands below it is printed, but for how lines are broken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    Path("photos").mkdir()
    for i in range(6):
        Path(f"photos/{i}.png").write_bytes(png(render(random_scene(i, (48, 64))).image))
    printed, shown = "", 0
    for path, language, text in BLOCK.findall((DOCS / "troubleshooting.md").read_text()):
        if path:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text)
        elif language == "bash":
            printed = " ".join("".join(map(given, text.splitlines())).split()).replace(str(tmp_path), "/home/me")
        else:
            for line in text.splitlines():
                assert re.search(re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*"), printed), (line, printed)
            shown += 1
    assert shown >= 40


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def anchors(page):
    """What a link to a heading of the page may say."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in heads]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for file, _, anchor in re.findall(r"\]\(([\w./-]*)(#([\w-]+))?\)", page.read_text(encoding="utf-8")):
        target = page.parent / file if file else page
        assert target.exists(), file
        if anchor:
            assert anchor in anchors(target)


def sentences(text):
    """The sentences of a page's paragraphs and lists, without code, tables, headings and the addresses of links."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
    lines = ["" if x.lstrip().startswith(("|", "#", "!")) else x for x in text.splitlines()]
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:- |\d+\. ))", "\n".join(lines)):
        plain = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "code", " ".join(block.split())))
        yield from re.split(r"(?<=[.!?])[\"*)]* ", plain)


@pytest.mark.parametrize("name", ["demo", "intervals", "performance", "proof", "scale", "strong", "toy"])
def test_sentences_of_the_evidence_have_fewer_than_30_words(name):
    found = list(sentences((ROOT / "docs" / "evidence" / f"{name}.md").read_text()))
    assert len(found) > 10
    assert not [s for s in found if len(re.findall(r"\S*\w\S*", s)) >= 30]


def test_files_that_pages_name_exist():
    """Of this repository: runs/toy.sh, polyteach/datasets/shapes.py, ..."""
    path = r"\b(?:polyteach|runs|tests|benchmarks)/[\w/-]+\.(?:py|sh|json|md)\b"
    pages = [p for p in PAGES if p.name != "CHANGELOG.md"]
    named = {(n, p.name) for p in pages for n in re.findall(path, p.read_text(encoding="utf-8"))}
    assert len(named) > 15
    assert not [(n, page) for n, page in named if not (ROOT / n).is_file()]


def test_pages_that_code_and_pages_name_exist():
    """Messages, docstrings and scripts say docs/FOLDER/PAGE, which has to be there."""
    rooms = ("polyteach", "runs", "tests", "benchmarks", "docs")
    files = [f for r in rooms for end in ("py", "sh", "md") for f in (ROOT / r).rglob(f"*.{end}")]
    named = {(n, f) for f in files for n in re.findall(r"\bdocs/[\w/-]+\.\w+", f.read_text(encoding="utf-8"))}
    assert len(named) > 40
    assert not [(n, str(f)) for n, f in named if not (ROOT / n).is_file()]


def test_the_bounds_on_the_page_of_trust_are_those_of_the_code():
    from polyteach import store
    from polyteach.datasets import _archive, _files, cifar, nyu
    from polyteach.ground import files, hub_models, limits, names
    from polyteach.model import student
    from polyteach.tasks import contract, detection
    from polyteach.teachers import _onnx_input, _prompts_file

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
    assert said("a file of prompts") == [_prompts_file.MOST]
    assert said("an ONNX") == [_onnx_input.LONGEST]
    assert said("a Hugging Face") == [hub_models.MOST_LAYERS, hub_models.MOST_CLASSES, hub_models.LARGEST]
    assert said("NYU") == [nyu._IMAGES, nyu._BLOCK // 2**20, nyu._LETTERS]
