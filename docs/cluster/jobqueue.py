"""Builds a submission on workers that dask-jobqueue submits to SLURM.

python docs/cluster/jobqueue.py RECIPE [option of ensemble build …]
"""

import os
import subprocess
import sys

from dask_jobqueue import SLURMCluster

JOBS = 8


def main(arguments: list[str]) -> int:
    """The exit code of ``ensemble build`` with these arguments."""
    worker = ["--resources", "GPU=1", "--memory-limit", "0", "--lifetime", "50m", "--lifetime-stagger", "5m"]
    with SLURMCluster(
        cores=1,
        job_cpu=4,
        memory="32GB",
        walltime="1:00:00",
        interface=os.environ.get("INTERFACE"),
        log_directory="cluster-logs",
        job_extra_directives=["--gres=gpu:1", "--requeue"],
        job_script_prologue=["export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK"],
        worker_extra_args=worker,
        scheduler_options={"dashboard_address": ":0"},
    ) as cluster:
        # As many at most as at least: jobs that ended are submitted again, and none is cancelled while it works.
        cluster.adapt(minimum_jobs=JOBS, maximum_jobs=JOBS)
        ensemble = [sys.executable, "-m", "ensemble.cli"]
        return subprocess.run([*ensemble, "build", *arguments, "--engine", cluster.scheduler_address]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
