"""A training that is asked to end by a signal goes on after the very step it ended with."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from ensemble.cli import main
from ensemble.support.errors import EXIT_STOPPED, TrainingStopped
from ensemble.train.stopping import STOP_SIGNALS, leave_stopping_to_the_parent, stop_request
from tests.support.empty_registry import store_in
from tests.support.small_training import run, spec_of

SHORT = [("steps: 60", "steps: 24"), ("validate_every: 20", "validate_every: 12")]
SHORT += [("batch_size: 2", "batch_size: 1\naccumulate: 2\nschedule: cosine")]


def asks(number: signal.Signals, *steps: int):
    """To be told of steps; sends the signal to this process when one of those is told."""
    waiting = list(steps)

    def told(done: float, what: str) -> None:
        if done in waiting and what.startswith("loss"):
            waiting.remove(done)
            signal.raise_signal(number)

    return told


def curve(folder: Path) -> list[tuple[int, float]]:
    client = MlflowClient(store_in(folder).tracking_uri)
    (recorded,) = client.search_runs([client.get_experiment_by_name("ensemble training").experiment_id])
    assert recorded.info.status == "FINISHED"
    return [(point.step, point.value) for point in client.get_metric_history(recorded.info.run_id, "loss")]


@pytest.mark.slow
def test_stopped_in_the_midst_it_goes_on_to_the_weights_and_losses_of_one_that_was_not(tmp_path, data):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    expected = run(spec_of(whole, *SHORT), data, whole)
    handlers = [signal.getsignal(number) for number in STOP_SIGNALS]
    for number, step in ((signal.SIGUSR1, 10), (signal.SIGTERM, 22)):
        with pytest.raises(TrainingStopped) as stopped:
            run(spec_of(parts, *SHORT), data, parts, asks(number, step))
        assert str(stopped.value).startswith(f"training of blobs stopped after step {step}, as {number.name} asked;")
        checkpoint = torch.load(parts / "work" / "blobs" / "last.ckpt", weights_only=True)
        assert checkpoint["global_step"] == step
    assert store_in(parts).versions() == []
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == handlers
    version = run(spec_of(parts, *SHORT), data, parts)
    assert version.sha256 == expected.sha256
    assert version.card.validation == expected.card.validation
    assert curve(parts) == curve(whole)


def test_a_validation_is_finished_first(tmp_path, data):
    """Step 12 is told before the validation that follows it; its checkpoint is then the one to go on from."""
    with pytest.raises(TrainingStopped, match="after step 12, as SIGUSR2"):
        run(spec_of(tmp_path, *SHORT), data, tmp_path, asks(signal.SIGUSR2, 12))
    assert (tmp_path / "work" / "blobs" / "best.ckpt").exists()


def test_before_the_first_step_it_ends_at_once_and_after_the_last_it_is_done(tmp_path, data):
    def while_reading(done: float, what: str) -> None:
        assert what.startswith("read crop")
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(TrainingStopped, match="stopped before its next step, as SIGTERM asked; the same command goes"):
        run(spec_of(tmp_path, *SHORT), data, tmp_path, while_reading)
    version = run(spec_of(tmp_path, *SHORT), data, tmp_path, asks(signal.SIGTERM, 24))
    assert version.version == 1


def test_only_the_first_signal_is_heard(tmp_path):
    with stop_request("blobs") as request, request.steps():
        for number in STOP_SIGNALS[::-1]:
            signal.raise_signal(number)
        assert request.signal == STOP_SIGNALS[-1].name


def test_of_processes_that_train_together_any_may_be_the_one_that_is_asked():
    with stop_request("blobs") as request:
        assert "stopped after step 7, as a process beside this one asked; the same" in str(request.stopped(7))


def test_who_serves_a_training_goes_on():
    with stop_request("blobs") as request:
        leave_stopping_to_the_parent()
        for number in STOP_SIGNALS:
            signal.raise_signal(number)
        assert request.signal is None


def test_the_command_says_so_in_a_line_and_with_a_code_of_its_own(tmp_path, data, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_in(tmp_path).tracking_uri)
    spec = spec_of(tmp_path, ("steps: 60", "steps: 100000"), ("validate_every: 20", "validate_every: 30"))
    checkpoint = tmp_path / "work" / "blobs" / "last.ckpt"

    ended = threading.Event()

    def ask_in_the_midst() -> None:
        while not checkpoint.exists():
            if ended.wait(0.02):
                return
        os.kill(os.getpid(), signal.SIGUSR1)

    with ThreadPoolExecutor(1) as other:
        asked = other.submit(ask_in_the_midst)
        code = main(["train", str(spec.file), "--data", str(data), "--work", str(tmp_path / "work")])
        ended.set()
        asked.result()
    step = torch.load(checkpoint, weights_only=True)["global_step"]
    out, errors = capsys.readouterr()
    assert (code, out) == (EXIT_STOPPED, "")
    assert errors.splitlines()[-1] == (
        f"ensemble: training of blobs stopped after step {step}, as SIGUSR1 asked; the same command goes on there"
    )
