#!/bin/sh
# Install the requirements, then check style and types and run the tests. --quick runs only the golden
# tests and those of semi, metrics and imports. Further arguments go to pytest.
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
# Two workers; tests/conftest.py keeps tests that must not run at the same time on one worker.
python -m pytest -n 2 --dist loadgroup "$@"
