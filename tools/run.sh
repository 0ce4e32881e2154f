# Sourced: run the Python script "$@" on $num_gpu GPUs and exit with its status.  After one of its
# processes is killed, all restart, up to $max_restarts times (default 0).  If $save_path is set, the
# output also goes to $save_path/console.txt, but a progress bar only to the terminal.
check() {  # name, value, expected
    case $2 in
        '' | *[!0-9]*) echo "error: $1 is '$2', expected $3" >&2; exit 2 ;;
    esac
}
check '<num_gpu>' "$num_gpu" '0 (CPU), 1, 2, ...'
check '<port>' "$port" 'a number such as 29500'
check MAX_RESTARTS "${max_restarts:=0}" '0, 1, 2, ...'
check NNODES "${NNODES:=1}" '1, 2, 3, ...'
check NODE_RANK "${NODE_RANK:=0}" '0, 1, 2, ...'
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
elif [ "$max_restarts" -gt 0 ]; then  # one process: any free port, as $port may be in use
    set -- -m tools.launch --standalone --max_restarts "$max_restarts" "$@"
fi
if [ -z "${save_path:-}" ]; then
    exec "$python" "$@"
fi
mkdir -p "$save_path" || exit 2
console=$save_path/console.txt
pipe=$(mktemp -u)
mkfifo "$pipe" || exit 2
# exec: the training replaces this shell, so it gets signals and its status is the script's.  The
# reader ignores signals that a terminal or batch system sends to all processes: it must end last.
(trap '' HUP INT TERM USR1 && exec <"$pipe" && rm "$pipe" && exec tee -a "$console") &
if [ -t 2 ]; then
    exec "$python" "$@" >"$pipe"
else
    exec "$python" "$@" >"$pipe" 2>&1
fi
