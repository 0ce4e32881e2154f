#!/bin/sh
# sh tools/val.sh <num_gpu> <port> [further arguments of evaluate.py]
#
# Environment variables override the variables below.
config=${config:-configs/pascal_corrmatch.yaml}
checkpoint_path=${checkpoint_path:-runs/pascal/corrmatch/92/best.pth}

if [ $# -lt 2 ]; then
    echo "usage: sh tools/val.sh <num_gpu> <port> [arguments of evaluate.py]" >&2
    exit 2
fi
num_gpu=$1 port=$2
shift 2
set -- evaluate.py --config "$config" --checkpoint "$checkpoint_path" "$@"

cd "$(dirname "$0")/.." || exit 1
. tools/run.sh
