"""A training made ready: devices that are there, memory shared by those who read."""

from dataclasses import replace

import pytest
import torch

from ensemble.support.errors import TrainingError
from ensemble.train.crops import open_crops
from ensemble.train.preparation import FOLDER_TOLD, Task, is_helper, prepared, silent
from tests.support.empty_registry import store_in
from tests.support.small_training import spec_of


def task(folder, data, *changes) -> Task:
    spec = spec_of(folder, *changes)
    training, validation = (open_crops(data, named, spec, "crops") for named in (spec.crops, spec.validation_crops))
    return Task(spec, spec.card(), training, validation, None, "0" * 64, folder)


def test_a_training_made_ready_twice_is_the_same(tmp_path, data):
    ready = [prepared(task(tmp_path, data), store_in(tmp_path), silent) for _ in range(2)]
    first, second = ({**module.network.state_dict()} for module, _ in ready)
    assert all(torch.equal(first[name], second[name]) for name in first)
    batches = [next(iter(patches.train_dataloader())) for _, patches in ready]
    assert torch.equal(batches[0].grey, batches[1].grey)
    for _, patches in ready:
        patches.close()


def test_what_the_weights_began_as_is_known(tmp_path, data):
    plain = task(tmp_path, data)
    assert plain.lineage == {"origin": f"training {'0' * 16}"}
    assert replace(plain, digest="1" * 64).lineage != plain.lineage


def test_more_gpus_than_there_are_and_a_precision_without_one_are_refused(tmp_path, data, monkeypatch):
    registry = store_in(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    three = task(tmp_path, data, ("steps: 60", "steps: 60\ndevices: 3"))
    with pytest.raises(TrainingError, match=r"spec.yaml:11: devices: 3 are wanted, and there are 2 GPUs here$"):
        prepared(three, registry, silent)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    half = task(tmp_path, data, ("steps: 60", "steps: 60\nprecision: 16-mixed"))
    with pytest.raises(TrainingError, match=r"spec.yaml:11: precision: 16-mixed needs a CUDA GPU"):
        prepared(half, registry, silent)


def test_a_process_helps_in_the_training_that_it_was_started_for(tmp_path, monkeypatch):
    assert not is_helper(tmp_path)
    monkeypatch.setenv(FOLDER_TOLD, str(tmp_path.resolve()))
    assert not is_helper(tmp_path)
    for rank, helps in (("0", False), ("1", True)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert is_helper(tmp_path) is helps
    assert not is_helper(tmp_path / "another")
