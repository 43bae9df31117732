#!/bin/bash
# Trains a specialist, over as many run limits as it takes: LSF runs a job again that ends with exit code 75.
# Usage, in the project's folder: ARGUMENTS="SPEC --data DATA" bsub < docs/cluster/train.lsf.sh
#BSUB -J ensemble-train
#BSUB -gpu "num=1"
#BSUB -n 8
#BSUB -R "span[hosts=1]"
#BSUB -W 4:00
#BSUB -wt 5
#BSUB -wa USR1
#BSUB -Q 75
#BSUB -o train-%J.log
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH"
read -ra given <<< "$ARGUMENTS"

exec ensemble train "${given[@]}"
