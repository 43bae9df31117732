"""The loop of a training: precision, processes that train together, and what is told when they cannot."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from ensemble.support.errors import TrainingError
from ensemble.train import fitting
from tests.support.empty_registry import store_in
from tests.support.small_training import run, spec_of, weights


def train_by_command(spec, data: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ensemble.cli", "train", str(spec.file), "--data", str(data)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store_in(folder).tracking_uri, "OMP_NUM_THREADS": "1"}
    done = [*command, "--work", str(folder / "work"), *more]
    return subprocess.run(done, env=environment, capture_output=True, text=True, timeout=300)


def losses(folder: Path, version) -> list[float]:
    client = MlflowClient(store_in(folder).tracking_uri)
    return [metric.value for metric in client.get_metric_history(version.card.notes.split()[-1].rstrip("."), "loss")]


@pytest.mark.slow
def test_two_processes_train_as_one_with_batches_twice_as_large(tmp_path, data):
    """So each sees patches of its own. All voxels are annotated: the mean of their losses is that of all patches."""
    pair, single = tmp_path / "pair", tmp_path / "single"
    changes = ("bce_dice", "bce"), ("steps: 60", "steps: 30"), ("validate_every: 20", "validate_every: 15")
    for folder in (pair, single):
        folder.mkdir()
    expected = run(spec_of(single, *changes, ("batch_size: 2", "batch_size: 4")), data, single)
    done = train_by_command(spec_of(pair, *changes), data, pair, "--set", "devices=2")
    assert (done.returncode, done.stderr) == (0, "train blobs …\n")
    (version,) = store_in(pair).versions()
    assert done.stdout.count("blobs") == 1  # one process tells of it
    ours, theirs = weights(pair, version), weights(single, expected)
    # Not biases: those in front of a norm change nothing, and rounding alone moves them.
    assert all(np.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs if name.endswith("weight"))
    assert version.card.validation["mito"] == pytest.approx(expected.card.validation["mito"], abs=1e-3)
    assert losses(pair, version) == pytest.approx(losses(single, expected), abs=1e-5)
    assert losses(pair, version)[-1] < 0.9 * losses(pair, version)[0]
    client = MlflowClient(store_in(pair).tracking_uri)
    assert len(client.search_runs([client.get_experiment_by_name("ensemble training").experiment_id])) == 1


@pytest.mark.slow
def test_processes_that_train_together_stop_together(tmp_path, data):
    spec = spec_of(tmp_path, ("learning_rate: 2e-2", "learning_rate: 1e30\ngradient_clip: 0\ndevices: 2"))
    done = train_by_command(spec, data, tmp_path)
    assert done.returncode == 2
    assert "spec.yaml:13: learning_rate: the loss is no longer finite at step 10; lower" in done.stderr
    assert "Traceback" not in done.stderr
    assert store_in(tmp_path).versions() == []


def test_half_precision_learns(tmp_path, data):
    version = run(spec_of(tmp_path, ("steps: 60", "steps: 40\nprecision: bf16-mixed")), data, tmp_path)
    seen = losses(tmp_path, version)
    assert seen[-1] < 0.8 * seen[0]
    assert all(value.dtype == np.float32 for name, value in weights(tmp_path, version).items() if "weight" in name)


def test_what_the_first_process_tells_the_others_is_taken_back(monkeypatch):
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with fitting._environment_kept():
        os.environ |= {"MASTER_PORT": "2", "LOCAL_RANK": "0"}
    assert (os.environ["MASTER_PORT"], os.environ.get("LOCAL_RANK")) == ("1", None)


def test_too_little_memory_and_what_cannot_be_compiled_are_told_by_key(tmp_path):
    import torch
    from torch._dynamo.exc import BackendCompilerFailed

    spec = spec_of(tmp_path)
    for raised, told in (
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            "batch_size: 2 patches of [16, 16, 16] do not fit into the GPU's",
        ),
        (
            BackendCompilerFailed(print, RuntimeError("no compiler\nat all"), None),
            "compile: the network cannot be comp",
        ),
    ):
        with pytest.raises(TrainingError) as error, fitting._told_of_the_spec(spec):
            raise raised
        assert told in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(RuntimeError, match="another"), fitting._told_of_the_spec(spec):
        raise RuntimeError("another")
