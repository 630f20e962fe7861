"""Writes the second half of docs/guide/datasets.md: what each format's file in polyteach/datasets says of its tree.

    python docs/guide/datasets.py

tests/test_docs.py fails where the page is not what this writes.
"""

import ast
from pathlib import Path

PAGE = Path(__file__).with_suffix(".md")
FORMATS = Path(__file__).parent.parent.parent / "polyteach" / "datasets"
MARK = "<!-- what follows is written by docs/guide/datasets.py -->\n"


def formats() -> dict[str, str]:
    """Format -> the docstring of its file or package, without importing it."""
    files = {f.stem: f for f in FORMATS.glob("*.py")} | {f.parent.name: f for f in FORMATS.glob("*/__init__.py")}
    known = sorted((name.replace("_", "-"), file) for name, file in files.items() if not name.startswith("_"))
    return {name: ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "" for name, file in known}


def page(before: str) -> str:
    """The page with the first half as it is in `before`."""
    sections = [f"### `{name}:`\n\n```text\n{text}\n```\n" for name, text in formats().items()]
    return before.partition(MARK)[0] + MARK + "\n" + "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
