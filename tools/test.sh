#!/bin/sh
# Install what is needed, then check style, types and behaviour.  Further arguments go to pytest.
cd "$(dirname "$0")/.." || exit 1
requirements=requirements-dev.txt
. tools/setup.sh
set -e
ruff check .
ruff format --check .
mypy
python -m pytest "$@"
