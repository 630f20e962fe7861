#!/usr/bin/env bash
# Sets up an environment of its own (once) and runs every check: lint, types, architecture, docs, tests.
#   bash tests/run.sh              everything
#   VENV=DIR bash tests/run.sh     in another environment than .venv
#   bash tests/run.sh -m 'not slow'   what follows goes to pytest
#   bash tests/run.sh -n 0 -x --pdb   in one process, to debug
#   bash tests/run.sh --hypothesis-profile default   with other examples each time, to look for what is not known yet
#   TORCH=newest bash tests/run.sh   with the newest torch, not with the least that pyproject.toml declares
set -euo pipefail
cd "$(dirname "$0")/.."
venv="$(realpath -m "${VENV:-.venv}")"
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
fi
# what is declared is what is tested
export TORCH="${TORCH:-least}"
"$venv/bin/python" - > "$venv/least.txt" <<'PY'
import os, re, tomllib
with open("pyproject.toml", "rb") as file:
    declared = tomllib.load(file)["project"]["dependencies"]
found = [re.fullmatch(r"(torch|torchvision)>=([0-9.]+)", line) for line in declared]
if os.environ["TORCH"] == "least":
    print(*(f"{m[1]}=={m[2]}.*" for m in found if m), sep="\n")
PY
# a machine's pip may be configured with folders that are not there, and says so for every package
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev,demo]' -c "$venv/least.txt" 2> >(grep -v 'is ignored: it is neither' >&2)
export PATH="$venv/bin:$PATH" HF_HUB_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
ruff check .
ruff format --check .
mypy
lint-imports
# the site: a link that leads nowhere is an error
site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
sphinx-build -q -W --keep-going docs "$site"
# a file at a time in each of two processes: tests mostly wait for one core, and fixtures belong to files, in the order of
# tests/conftest.py; examples that are the same every time, so that what fails is what was changed
python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --hypothesis-profile ci "$@"
