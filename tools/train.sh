#!/bin/sh
# sh tools/train.sh <num_gpu> <port> [further arguments of the method's script]
#
# <num_gpu> processes, one a GPU; 0 trains on the CPU.  Each variable below can also be set from
# the environment; an empty list is the config's own.  Several machines: NNODES, NODE_RANK and
# MASTER_ADDR from the environment; they need not share a disk, as the checkpoints in save_path are
# written and read by the first machine (NODE_RANK 0) alone.  Machines and processes wait for each
# other for TIMEOUT minutes (default 30).  If a process is killed (no memory, a fault), all go on from
# the last checkpoint by themselves, up to MAX_RESTARTS times.
method=${method:-corrmatch}
config=${config:-configs/pascal_corrmatch.yaml}
labeled_id_path=${labeled_id_path-splits/pascal/92/labeled.txt}
unlabeled_id_path=${unlabeled_id_path-splits/pascal/92/unlabeled.txt}
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
