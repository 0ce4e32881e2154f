#!/bin/sh
# From a fresh clone to two trained models: SupOnly and FixMatch on simple shapes.
# Further arguments go to tools.quickstart (see --help).
cd "$(dirname "$0")/.." || exit 1
requirements=requirements.txt
. tools/setup.sh
exec python -m tools.quickstart "$@"
