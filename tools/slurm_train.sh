#!/bin/sh
# sbatch [options of sbatch] tools/slurm_train.sh [further arguments of the method's script]
#
# From the repository's root, with the variables of tools/train.sh in the environment:
#
#     method=unimatch config=configs/cityscapes.yaml save_path=runs/cityscapes/unimatch \
#         sbatch --nodes 2 --gpus-per-node 4 --time 24:00:00 tools/slurm_train.sh
#
# Of an array (python -m tools.sweep SPEC --slurm ...) each job has its variables from the line of its
# number in the file $array.
#
# num_gpu: processes on a node, by default one for each of its GPUs; port: by default by the job.
# A process that is killed is restarted (MAX_RESTARTS); a node that is lost is Slurm's to replace.
# Two minutes before the time is up the training saves and ends, and the job is queued again; it
# goes on where it was.  A validation must fit into these two minutes; else ask for more.
#SBATCH --job-name=train
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2
if [ ! -f tools/train.sh ]; then
    echo "error: $PWD is not the repository; start sbatch there" >&2
    exit 2
fi
if [ -n "${array:-}" ]; then
    eval "$(sed -n "${SLURM_ARRAY_TASK_ID:?is set by sbatch --array}p" "$array")"
fi
job=${SLURM_JOB_ID:?is set by sbatch; start this script with it}
num_gpu=${num_gpu:-${SLURM_GPUS_ON_NODE:-0}}
port=${port:-$((20000 + job % 20000))}
NNODES=${SLURM_JOB_NUM_NODES:-1}
MASTER_ADDR=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-localhost}" | head -n 1)
export NNODES MASTER_ADDR

# One task on each node.  After the first has ended the others have a minute.
srun --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=60 \
    sh -c 'NODE_RANK=$SLURM_NODEID exec sh tools/train.sh "$@"' task "$num_gpu" "$port" "$@" &
step=$!

# Slurm signals this shell alone before the time is up; srun hands it on to all tasks.  SIGTERM is
# for a job that is cancelled, and none that should come again.
cancelled=no
trap 'kill -USR1 "$step"' USR1
trap 'cancelled=yes; kill -TERM "$step"' TERM
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
