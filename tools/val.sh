#!/bin/sh
# sh tools/val.sh <num_gpu> <port> [further arguments of evaluate.py]
#
# Evaluate the best checkpoint of a run.  Environment variables override the variables below; an
# empty config: the run's own.  Relative paths start at the repository.
save_path=${save_path:-runs/pascal/corrmatch/92}
checkpoint_path=${checkpoint_path:-$save_path/best.pth}
config=${config:-}

if [ $# -lt 2 ]; then
    echo "usage: sh tools/val.sh <num_gpu> <port> [arguments of evaluate.py]" >&2
    exit 2
fi
num_gpu=$1 port=$2
shift 2
if [ -n "$config" ]; then
    set -- --config "$config" "$@"
fi
set -- evaluate.py --checkpoint "$checkpoint_path" "$@"
save_path=  # console.txt is the training's

cd "$(dirname "$0")/.." || exit 1
. tools/run.sh
