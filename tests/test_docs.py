"""The code blocks of the pages run as they stand."""

import re
from pathlib import Path

import pytest

from polyteach.scene import random_scene, render
from polyteach.store import ImageRow, Store
from polyteach.tasks import all_tasks, load_task
from polyteach.tasks.contract import Space
from tests.conftest import png

PAGE = Path(__file__).parent.parent / "docs" / "store.md"


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S))
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
    exec(compile(block, str(PAGE), "exec"), {})
