#!/bin/bash
# Builds a submission on workers that are jobs of their own. This job needs no GPU; submitted again, it goes on.
# Usage, in the project's folder: sbatch docs/cluster/build.slurm.sh RECIPE [option of ensemble build …]
#SBATCH --job-name=ensemble-build
#SBATCH --cpus-per-task=4 --mem=32G --time=24:00:00
#SBATCH --requeue --open-mode=append
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH"

folder=$(mktemp -d "$PWD/cluster-XXXXXX")
started=()
workers=''
finish() {
  local code=$?
  if [ -n "$workers" ]; then scancel "$workers"; fi
  kill "${started[@]}" 2> /dev/null || true
  wait
  if [ "$code" = 0 ]; then rm -rf "$folder"; else echo "what scheduler and workers said is in $folder" >&2; fi
}
trap finish EXIT
trap 'exit 143' TERM

dask scheduler --scheduler-file "$folder/scheduler.json" ${INTERFACE:+--interface "$INTERFACE"} \
  --port 0 --no-dashboard > "$folder/scheduler.log" 2>&1 &
started+=($!)
until [ -s "$folder/scheduler.json" ]; do kill -0 "${started[0]}"; sleep 1; done
workers=$(sbatch --parsable --output="$folder/worker-%a.log" \
  docs/cluster/workers.slurm.sh "$folder/scheduler.json")
ensemble build "$@" --engine "$folder/scheduler.json" &
started+=($!)
wait $!
