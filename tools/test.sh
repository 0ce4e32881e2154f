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
# Three workers for two cores: one often waits for processes it has launched.  Tests that would slow
# each other down share a worker (tests/conftest.py).
python -m pytest -n 3 --dist loadgroup "$@"
