#!/bin/bash
# Builds a submission on workers that are jobs of their own. This job needs no GPU; submitted again, it goes on.
# Usage, in the project's folder: ARGUMENTS="RECIPE --data DATA" bsub < docs/cluster/build.lsf.sh
#BSUB -J ensemble-build
#BSUB -n 4
#BSUB -R "span[hosts=1]"
#BSUB -W 24:00
#BSUB -r
#BSUB -o build-%J.log
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH"
read -ra given <<< "$ARGUMENTS"

folder=$(mktemp -d "$PWD/cluster-XXXXXX")
started=()
finish() { # workers leave with their scheduler
  local code=$?
  kill "${started[@]}" 2> /dev/null || true
  wait
  if [ "$code" = 0 ]; then rm -rf "$folder"; else echo "what the scheduler said is in $folder" >&2; fi
}
trap finish EXIT
trap 'exit 143' TERM USR2

dask scheduler --scheduler-file "$folder/scheduler.json" ${INTERFACE:+--interface "$INTERFACE"} \
  --port 0 --no-dashboard > "$folder/scheduler.log" 2>&1 &
started+=($!)
until [ -s "$folder/scheduler.json" ]; do kill -0 "${started[0]}"; sleep 1; done
SCHEDULER_FILE="$folder/scheduler.json" bsub < docs/cluster/workers.lsf.sh
ensemble build "${given[@]}" --engine "$folder/scheduler.json" &
started+=($!)
wait $!
