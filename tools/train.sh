#!/bin/sh
# sh tools/train.sh <num_gpu> <port> [further arguments of the method's script]
#
# Train with one process per GPU; <num_gpu> 0: on the CPU.  Environment variables override the
# variables below.  Relative paths start at the repository.  An empty split file: the config's own.
#
# Several machines: set NNODES, NODE_RANK and MASTER_ADDR.  They need no shared disk: only the first
# machine (NODE_RANK 0) reads and writes checkpoints in save_path.  Machines and processes wait up to
# TIMEOUT minutes for each other (default 30).  If a process is killed (out of memory, hardware), all
# restart from the last checkpoint, up to MAX_RESTARTS times.
method=${method:-corrmatch}
config=${config:-configs/pascal_corrmatch.yaml}
labeled_id_path=${labeled_id_path:-}
unlabeled_id_path=${unlabeled_id_path:-}
save_path=${save_path:-runs/pascal/corrmatch/92}
max_restarts=${MAX_RESTARTS:-3}

if [ $# -lt 2 ]; then
    echo "usage: sh tools/train.sh <num_gpu> <port> [arguments of $method.py]" >&2
    exit 2
fi
num_gpu=$1 port=$2
shift 2

if [ -n "$unlabeled_id_path" ] && [ "$method" != supervised ]; then
    set -- --unlabeled-id-path "$unlabeled_id_path" "$@"
fi
if [ -n "$labeled_id_path" ]; then
    set -- --labeled-id-path "$labeled_id_path" "$@"
fi
set -- "$method.py" --config "$config" --save-path "$save_path" "$@"

cd "$(dirname "$0")/.." || exit 1
. tools/run.sh
