# Sourced: run the Python script "$@" on $num_gpu GPUs, with its exit status.  If one of its
# processes is killed, all start again, up to $max_restarts times (0 where it is not set).  What it
# prints also lands in $save_path/console.txt, where that is set; a progress bar stays on the
# terminal alone.
case $num_gpu in
    '' | *[!0-9]*) echo "error: <num_gpu> is '$num_gpu', expected 0 (CPU), 1, 2, ..." >&2; exit 2 ;;
esac
case $port in
    '' | *[!0-9]*) echo "error: <port> is '$port', expected a number such as 29500" >&2; exit 2 ;;
esac
case ${max_restarts:=0} in
    *[!0-9]*) echo "error: MAX_RESTARTS is '$max_restarts', expected 0, 1, 2, ..." >&2; exit 2 ;;
esac
case ${NNODES:=1} in
    *[!0-9]*) echo "error: NNODES is '$NNODES', expected 1, 2, 3, ..." >&2; exit 2 ;;
esac
case ${NODE_RANK:=0} in
    *[!0-9]*) echo "error: NODE_RANK is '$NODE_RANK', expected 0, 1, 2, ..." >&2; exit 2 ;;
esac
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -f .venv/bin/activate ]; then
    . .venv/bin/activate
fi
python=$(command -v python || command -v python3)

script=$1
shift
if [ "$num_gpu" -eq 0 ]; then
    set -- "$script" --device cpu "$@"
else
    set -- "$script" --device cuda "$@"
fi
if [ "$num_gpu" -gt 1 ] || [ "$NNODES" -gt 1 ]; then
    [ "$num_gpu" -gt 0 ] || num_gpu=1  # one process on the CPU of each machine
    set -- -m tools.launch --nproc_per_node "$num_gpu" --nnodes "$NNODES" \
        --node_rank "$NODE_RANK" --master_addr "${MASTER_ADDR:-localhost}" \
        --master_port "$port" --max_restarts "$max_restarts" "$@"
elif [ "$max_restarts" -gt 0 ]; then  # one process needs no port, which others may share
    set -- -m tools.launch --standalone --max_restarts "$max_restarts" "$@"
fi
if [ -z "${save_path:-}" ]; then
    exec "$python" "$@"
fi
mkdir -p "$save_path" || exit 2
console=$save_path/console.txt
pipe=$(mktemp -u)
mkfifo "$pipe" || exit 2
# The shell becomes the training, which so gets signals itself and ends with its own status; those
# that a terminal or batch system sends to all must not end its reader before it.
(trap '' INT TERM USR1 && exec <"$pipe" && rm "$pipe" && exec tee -a "$console") &
if [ -t 2 ]; then
    exec "$python" "$@" >"$pipe"
else
    exec "$python" "$@" >"$pipe" 2>&1
fi
