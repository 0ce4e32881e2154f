#!/bin/sh
# Install the requirements, then train SupOnly and FixMatch on simple shapes.
# Arguments go to tools.quickstart (see --help); paths are relative to the current folder.
here=$(pwd)
cd "$(dirname "$0")/.." || exit 1
requirements=requirements.txt
. tools/setup.sh
PYTHONPATH=$(pwd)${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
cd "$here" || exit 1
exec python -m tools.quickstart "$@"
