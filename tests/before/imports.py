"""Which names people import, and which there are: `imports.json`.

used      what README.md, docs, runs, benchmarks and further folders import, "module" or "module:name"
public    of every module of the package the names that it defines, but for those that begin with an underscore

    python -m tests.before.imports --write [FOLDER ...]     of the present code; further folders of Python files
    python -m tests.before.imports                          which of them are no longer where they were

Kept is what polyteach 0.2.0 (commit 0555531) had; it is written anew only where names are to be given up.
"""

import ast
import importlib
import json
import re
import sys
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")
ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "polyteach"


def _chain(node):
    """`a.b.c` of an attribute of an attribute of a name; None where it begins with something else."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else None


def _module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def imported(source):
    """Modules, and "module:name" of names, that a text of Python takes from the package."""
    found, aliases = set(), {}
    nodes = list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.Import):
            for one in node.names:
                if one.name.split(".")[0] == PACKAGE:
                    found.add(one.name)
                    if one.asname:
                        aliases[one.asname] = one.name
                    else:
                        aliases[PACKAGE] = PACKAGE
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            for one in node.names:
                whole = f"{node.module}.{one.name}"
                if node.module != PACKAGE or not _module(whole):
                    found.add(f"{node.module}:{one.name}")
                else:
                    found.add(whole)
                    aliases[one.asname or one.name] = whole
    for node in nodes:
        chain = _chain(node) if isinstance(node, ast.Attribute) else None
        if chain and chain[0] in aliases:
            *where, name = [aliases[chain[0]], *chain[1:]]
            where = ".".join(where)
            if _module(where) and not name.startswith("__"):
                found.add(f"{where}:{name}")
    return found


def _pythons(file):
    """The texts of Python in a file: all of it, or the blocks of Markdown."""
    if file.suffix not in (".py", ".md"):
        return []
    text = file.read_text(encoding="utf-8")
    return [text] if file.suffix == ".py" else re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def used(folders):
    """What README, docs, runs, benchmarks and the files of `folders` import."""
    files = [ROOT / "README.md", *(f for d in ("docs", "runs", "benchmarks") for f in (ROOT / d).iterdir())]
    files += [f for d in folders for f in Path(d).iterdir()]
    found = set()
    for file in files:
        for text in _pythons(file):
            found |= imported(text)
    return sorted(one for one in found if not one.partition(":")[2].startswith("_"))


def public(file):
    """Names that a module defines: functions, classes, constants."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {t.id for t in targets if isinstance(t, ast.Name)}
    return sorted(n for n in names if not n.startswith("_"))


def everything():
    """Module -> its public names."""
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    dotted = {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}
    return {name: public(file) for name, file in dotted.items()}


def gone(wanted):
    """Those of "module" or "module:name" that cannot be imported, each with the reason."""
    missing = []
    for one in wanted:
        module, _, name = one.partition(":")
        try:
            found = importlib.import_module(module)
            if name and not hasattr(found, name):
                importlib.import_module(f"{module}.{name}")
        except Exception as e:  # whatever a module raises when it is imported
            missing.append(f"{one} ({type(e).__name__}: {e})")
    return missing


def main():
    """The commands of the head of this file."""
    if sys.argv[1:2] == ["--write"]:
        kept = {"used": used(sys.argv[2:]), "public": everything()}
        FILE.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        return
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    names = [m for m in kept["public"] if m != f"{PACKAGE}.__main__"]
    for title, wanted in (
        ("used", kept["used"]),
        ("public", [*names, *(f"{m}:{n}" for m in names for n in kept["public"][m])]),
    ):
        missing = gone(wanted)
        print(f"{title}: {len(wanted) - len(missing)} of {len(wanted)} are where they were", *missing, sep="\n  ")


if __name__ == "__main__":
    main()
