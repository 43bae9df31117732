#!/bin/bash
# Workers of a build: 40 jobs of an hour, 8 at a time. One that ends makes room for the next.
# Usage, in the project's folder: sbatch docs/cluster/workers.slurm.sh SCHEDULER.json
#SBATCH --job-name=ensemble-worker
#SBATCH --array=1-40%8
#SBATCH --gres=gpu:1 --cpus-per-task=4 --mem=32G --time=1:00:00
#SBATCH --requeue --open-mode=append
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"

[ -e "$1" ] || exit 0 # the build has ended
# It leaves by itself before its walltime, or when it finds no scheduler for a minute.
exec dask worker --scheduler-file "$1" ${INTERFACE:+--interface "$INTERFACE"} \
  --nthreads 1 --resources GPU=1 --memory-limit 0 --local-directory "${TMPDIR:-/tmp}" --no-dashboard \
  --lifetime 50m --lifetime-stagger 5m --death-timeout 60
