"""docs/cluster/train.slurm.sh, as it stands: a training that outlives its job's walltime."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cluster.one_node_slurm import Slurm, until
from tests.support.annotated import noise, write_em, write_truth
from tests.support.empty_registry import store_in
from tests.support.processes import ROOT
from tests.support.small_training import run, spec_of

SCRIPT = ROOT / "docs" / "cluster" / "train.slurm.sh"
LONG = ("steps: 60", "steps: 400"), ("validate_every: 20", "validate_every: 150")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write_em(root, noise(32, 32, 64))
    for crop, left in (("1", 0), ("2", 32)):
        truth = np.zeros((32, 32, 32), np.uint8)
        truth[8:24, 8:24, 8:24] = 1
        for name in ("mito", "er"):
            write_truth(root, name, truth, origin_nm=(0, 0, 8 * left), crop=crop)
    return root


def test_it_is_saved_requeued_and_ends_with_the_weights_of_one_that_had_all_the_time(
    slurm: Slurm, tmp_path: Path, data: Path, logs: Path
) -> None:
    """The signal comes as from ``--signal``, but when the test wants it; so does the job's second start."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    spec, checkpoint = spec_of(parts, *LONG), parts / "work" / "blobs" / "last.ckpt"
    slurm.environment["MLFLOW_TRACKING_URI"] = store_in(parts).tracking_uri
    options = f"--chdir={ROOT}", f"--output={logs}/train.log"
    job = slurm.submit(*options, SCRIPT, spec.file, "--data", data, "--work", parts / "work")
    until(checkpoint.exists, "no checkpoint is ever written", 120)
    slurm.run("scancel", "--signal=USR1", job)
    slurm.wait(job, "PENDING")
    assert int(slurm.field(job, "Restarts")) == 1
    step = torch.load(checkpoint, weights_only=True)["global_step"]
    assert f"training of blobs stopped after step {step}, as SIGUSR1 asked" in (logs / "train.log").read_text()
    assert step % 150 != 0
    slurm.run("scontrol", "update", f"job={job}", "starttime=now")
    slurm.wait(job, "COMPLETED", "FAILED")
    (version,) = store_in(parts).versions()
    expected = run(spec_of(whole, *LONG), data, whole)
    assert version.sha256 == expected.sha256
