#!/bin/bash
# Workers of a build: 40 jobs of an hour, 8 at a time. One that ends makes room for the next.
# Usage, in the project's folder: SCHEDULER_FILE=S.json bsub < docs/cluster/workers.lsf.sh
#BSUB -J "ensemble-worker[1-40]%8"
#BSUB -gpu "num=1"
#BSUB -n 4
#BSUB -R "span[hosts=1]"
#BSUB -W 1:00
#BSUB -r
#BSUB -o worker-%J-%I.log
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS="${LSB_DJOB_NUMPROC:-1}"

[ -e "$SCHEDULER_FILE" ] || exit 0 # the build has ended
# It leaves by itself before its walltime, or when it finds no scheduler for a minute.
exec dask worker --scheduler-file "$SCHEDULER_FILE" ${INTERFACE:+--interface "$INTERFACE"} \
  --nthreads 1 --resources GPU=1 --memory-limit 0 --local-directory "${TMPDIR:-/tmp}" --no-dashboard \
  --lifetime 50m --lifetime-stagger 5m --death-timeout 60
