#!/bin/sh
# Train two models from a fresh clone: SupOnly and FixMatch on simple shapes.
# Further arguments go to tools.quickstart (see --help); relative paths start in the current folder.
here=$(pwd)
cd "$(dirname "$0")/.." || exit 1
requirements=requirements.txt
. tools/setup.sh
PYTHONPATH=$(pwd)${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
cd "$here" || exit 1
exec python -m tools.quickstart "$@"
