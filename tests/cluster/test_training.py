"""docs/cluster/train.slurm.sh, as it stands: a training that outlives its job's walltime."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cluster.one_node_slurm import Slurm, until
from tests.support.annotated import noise, write_em, write_truth
from tests.support.empty_registry import store_in
from tests.support.processes import NEVER_S, ROOT
from tests.support.small_training import spec_of

SCRIPT = ROOT / "docs" / "cluster" / "train.slurm.sh"
EPOCH = 150
LONG = ("steps: 60", "steps: 400"), ("validate_every: 20", f"validate_every: {EPOCH}")


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


class Training:
    """One that is a job: its spec and all that comes of it lie in a folder of its own."""

    def __init__(self, slurm: Slurm, folder: Path, data: Path, devices: int) -> None:
        folder.mkdir()
        spec = spec_of(folder, *LONG, ("batch_size: 2", f"batch_size: 2\ndevices: {devices}"))
        self.checkpoint, self.log, self.store = (
            folder / "work" / "blobs" / "last.ckpt",
            folder / "log",
            store_in(folder),
        )
        given = spec.file, "--data", data, "--work", folder / "work"
        self.job = slurm.submit(self.log, SCRIPT, *given, MLFLOW_TRACKING_URI=self.store.tracking_uri)


@pytest.mark.parametrize("devices", [1, 2])
def test_it_is_saved_requeued_and_ends_with_the_weights_of_one_that_had_all_the_time(
    slurm: Slurm, tmp_path: Path, data: Path, devices: int
) -> None:
    """The signal comes as from ``--signal``, but when the test wants it; so does the job's second start."""
    whole, parts = (Training(slurm, tmp_path / name, data, devices) for name in ("whole", "parts"))
    until(parts.checkpoint.exists, "no checkpoint is ever written", 120)
    slurm.run("scancel", "--signal=USR1", parts.job)
    slurm.wait(parts.job, "PENDING")
    assert int(slurm.field(parts.job, "Restarts")) == 1
    step = torch.load(parts.checkpoint, weights_only=True)["global_step"]
    assert f"training of blobs stopped after step {step}, as SIGUSR1 asked" in parts.log.read_text()
    assert step % EPOCH
    slurm.run("scontrol", "update", f"job={parts.job}", "starttime=now")
    for training in (whole, parts):
        slurm.wait(training.job, "COMPLETED", "FAILED", timeout_s=NEVER_S)
    (expected,), (version,) = whole.store.versions(), parts.store.versions()
    assert version.sha256 == expected.sha256
