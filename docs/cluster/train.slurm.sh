#!/bin/bash
# Trains a specialist, over as many walltimes as it takes.
# Usage, in the project's folder: sbatch docs/cluster/train.slurm.sh SPEC [option of ensemble train …]
#SBATCH --job-name=ensemble-train
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=64G
#SBATCH --time=4:00:00 --signal=USR1@300
#SBATCH --requeue --open-mode=append
set -uo pipefail
export PATH="$PWD/.venv/bin:$PATH"

srun --ntasks=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" ensemble train "$@"
code=$?
if [ "$code" = 75 ]; then # stopped, and goes on after the very step it ended with
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
