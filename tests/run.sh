#!/usr/bin/env bash
# Sets up an environment of its own (once) and runs every check: lint, types, architecture, tests.
#   bash tests/run.sh              everything
#   VENV=DIR bash tests/run.sh     in another environment than .venv
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${VENV:-.venv}"
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev,demo]' 2>&1 | grep -v 'is ignored: it is neither' || true
export PATH="$PWD/$venv/bin:$PATH" HF_HUB_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
ruff check .
ruff format --check .
mypy
lint-imports
python -m pytest "$@"
