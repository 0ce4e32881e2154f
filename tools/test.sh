#!/bin/sh
# Install the requirements, then check style, types and behaviour.  --quick runs fewer tests:
# reference numbers, building blocks, metrics, imports.  Further arguments go to pytest.
cd "$(dirname "$0")/.." || exit 1
requirements=requirements-dev.txt
. tools/setup.sh
set -e
ruff check .
ruff format --check .
codespell
mypy
if [ "${1:-}" = --quick ]; then
    shift
    set -- tests/methods/test_golden.py tests/semi tests/metrics tests/robustness/test_imports.py "$@"
fi
# Two workers; tests that launch processes and wait for them share one (tests/conftest.py).
python -m pytest -n 2 --dist loadgroup "$@"
