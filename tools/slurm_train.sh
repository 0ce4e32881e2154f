#!/bin/sh
# sbatch [options of sbatch] tools/slurm_train.sh [further arguments of the method's script]
#
# Submit it from the repository root, with the variables of tools/train.sh in the environment:
#
#     method=unimatch config=configs/mine.yaml save_path=runs/mine/unimatch \
#         sbatch --nodes 2 --gpus-per-node 4 --cpus-per-task 32 --time 24:00:00 tools/slurm_train.sh
#
# --cpus-per-task: CPU cores per node, about 8 for each GPU; Slurm's default is one.
#
# A job of an array (python -m tools.sweep SPEC --slurm ...) reads its variables from a line of the
# file $array.
#
# num_gpu: processes per node (default: one per GPU of the node); port: by default from the job id.
# tools/train.sh restarts killed processes (MAX_RESTARTS); Slurm replaces lost nodes.  Two minutes
# before the time limit, the training saves and ends, and the job is requeued and resumes.  If one
# validation takes longer, increase the 120 seconds below.
#SBATCH --job-name=train
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2
if [ ! -f tools/train.sh ]; then
    echo "error: $PWD is not the repository; submit the job from there" >&2
    exit 2
fi
if [ -n "${array:-}" ]; then
    variables=$(sed -n "${SLURM_ARRAY_TASK_ID:-0}p" "$array" 2>/dev/null)
    if [ -z "$variables" ]; then
        echo "error: $array: found no line ${SLURM_ARRAY_TASK_ID:-0}; submit the array again with tools.sweep" >&2
        exit 2
    fi
    eval "$variables"
fi
job=${SLURM_JOB_ID:?is not set; start this script with sbatch}
num_gpu=${num_gpu:-${SLURM_GPUS_ON_NODE:-0}}
port=${port:-$((20000 + job % 20000))}
NNODES=${SLURM_JOB_NUM_NODES:-1}
MASTER_ADDR=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-localhost}" | head -n 1)
export NNODES MASTER_ADDR

# Since Slurm 22.05, srun does not take --cpus-per-task from sbatch.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
    export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
fi
# One task per node, whatever sbatch was given, with this shell's variables.  After the first task
# ends, the others have a minute to end.
srun --nodes="$NNODES" --ntasks="$NNODES" --ntasks-per-node=1 --export=ALL \
    --kill-on-bad-exit=0 --wait=60 \
    sh -c 'NODE_RANK=$SLURM_NODEID exec sh tools/train.sh "$@"' task "$num_gpu" "$port" "$@" &
step=$!

# Before the time limit, Slurm signals only this shell, and srun forwards SIGUSR1 to all tasks (on
# SIGTERM it would kill them).  SIGTERM cancels the job, which is then not requeued.
cancelled=no
trap 'kill -USR1 "$step"' USR1
trap 'cancelled=yes; kill -USR1 "$step"' TERM
wait "$step"
status=$?
while kill -0 "$step" 2>/dev/null; do  # a signal only interrupted the wait
    wait "$step"
    status=$?
done

if [ "$status" -eq 75 ] && [ "$cancelled" = no ]; then
    scontrol requeue "$job"
fi
exit "$status"
