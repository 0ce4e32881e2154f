#!/bin/sh
# Install what is needed, then check style, types and behaviour.  Further arguments go to pytest.
cd "$(dirname "$0")/.." || exit 1
requirements=requirements-dev.txt
. tools/setup.sh
set -e
ruff check .
ruff format --check .
mypy
# Two workers; tests that launch processes and wait for them share one (tests/conftest.py).
python -m pytest -n 2 --dist loadgroup "$@"
