#!/bin/bash
# Builds a submission on every GPU of this machine, each with a worker that sees no other.
# Usage, in the project's folder: [GPUS="0 1"] docs/cluster/gpus_of_one_box.sh RECIPE [option of ensemble build …]
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH"
gpus=${GPUS:-$(nvidia-smi --query-gpu=index --format=csv,noheader)}

folder=$(mktemp -d)
started=()
finish() {
  local code=$?
  kill "${started[@]}" 2> /dev/null || true
  wait
  if [ "$code" = 0 ]; then rm -rf "$folder"; else echo "what scheduler and workers said is in $folder" >&2; fi
}
trap finish EXIT

dask scheduler --scheduler-file "$folder/scheduler.json" --host 127.0.0.1 --port 0 --no-dashboard \
  > "$folder/scheduler.log" 2>&1 &
started+=($!)
until [ -s "$folder/scheduler.json" ]; do kill -0 "${started[0]}"; sleep 1; done
for gpu in $gpus; do
  CUDA_VISIBLE_DEVICES=$gpu dask worker --scheduler-file "$folder/scheduler.json" --host 127.0.0.1 \
    --nthreads 1 --resources GPU=1 --memory-limit 0 --local-directory "$folder" --no-dashboard \
    > "$folder/worker-$gpu.log" 2>&1 &
  started+=($!)
done
ensemble build "$@" --engine "$folder/scheduler.json"
