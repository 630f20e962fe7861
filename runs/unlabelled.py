"""A store's pictures without its labels, as a new store: `python runs/unlabelled.py FROM TO`. Local folders alone.

What was copied before stays, so that a copy that was stopped goes on.
"""

import argparse
import shutil
from pathlib import Path


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FROM", type=Path)
    parser.add_argument("to", metavar="TO", type=Path)
    given = parser.parse_args()
    if not (given.source / "store.json").is_file():
        parser.error(f"{given.source} is no store: it has no store.json")
    shutil.copytree(given.source, given.to, ignore=shutil.ignore_patterns("labels"), dirs_exist_ok=True)


if __name__ == "__main__":
    main()
