"""A network in training: it stops when it must, and its checkpoints tell where they come from."""

import math
import time

import numpy as np
import pytest
import torch
from torch import nn

from ensemble.support.errors import TrainingError
from ensemble.train.crops import SURE, Patch
from ensemble.train.fitting import fit
from ensemble.train.lightning_module import Reporting, Specialist, rate
from ensemble.train.loading import Patches
from ensemble.train.patch_cache import PatchReader
from ensemble.train.sampling import ValidationPatches
from ensemble.train.stopping import StopRequest
from tests.support.small_training import run, spec_of


def test_a_loss_that_is_no_number_stops_with_one_line(tmp_path, data):
    spec = spec_of(tmp_path, ("learning_rate: 2e-2", "learning_rate: 1e30\ngradient_clip: 0"))
    with pytest.raises(TrainingError, match=r"spec.yaml:13: learning_rate: the loss is no longer finite at step \d+;"):
        run(spec, data, tmp_path)


def test_training_that_gets_no_better_stops_early(tmp_path, data):
    changes = [("2e-2", "1e-12"), ("validate_every: 20", "validate_every: 1\npatience: 2")]
    told = []
    run(spec_of(tmp_path, *changes), data, tmp_path, lambda done, what: told.append(done))
    assert max(told) == 3


def test_checkpoints_of_the_last_validations_stay_and_tell_where_they_come_from(tmp_path, data):
    from registry import soup

    few = ("steps: 60", "steps: 6\nkeep: 2"), ("validate_every: 20", "validate_every: 2")
    version = run(spec_of(tmp_path, *few), data, tmp_path)
    files = sorted((tmp_path / "work" / "blobs").glob("step-*.ckpt"))
    assert [file.name for file in files] == ["step-0000004.ckpt", "step-0000006.ckpt"]
    found = [soup.member_in_file(file, version.card) for file in files]
    assert {member.ancestry for member in found} == {frozenset({version.card.origin})}
    soup.check_members(found, same_origin=False)


class Zeros(nn.Module):
    """A network that never knows."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, grey):
        return torch.zeros((len(grey), 2, *grey.shape[2:])) + 0 * self.unused


def test_a_step_is_the_loss_of_the_networks_answer(tmp_path):
    specialist = Specialist(Zeros(), spec_of(tmp_path, ("loss: bce_dice", "loss: bce")))
    codes = torch.full((1, 2, 4, 4, 4), SURE, dtype=torch.uint8)
    loss = specialist.training_step((torch.zeros(1, 1, 4, 4, 4), codes), 0)
    assert loss.item() == pytest.approx(math.log(2))


def test_the_cosine_schedule_rises_over_its_first_steps_and_ends_at_nothing(tmp_path):
    spec = spec_of(tmp_path, ("steps: 60", "steps: 200"), ("loss: bce_dice", "schedule: cosine"))
    rates = [rate(step, spec) for step in range(200)]
    assert rates[0] == pytest.approx(0.25)  # of four steps of warm-up
    assert np.argmax(rates) == 3
    assert (np.diff(rates[3:]) < 0).all()
    assert rates[-1] < 1e-3
    assert rate(7, spec_of(tmp_path)) == 1.0


def test_the_share_of_time_without_a_batch_is_told(tmp_path):
    def slowly(number: int) -> Patch:
        time.sleep(0.1)
        return Patch(np.zeros((4, 4, 4), np.uint8), np.zeros((2, 4, 4, 4), np.uint8))

    spec = spec_of(tmp_path, ("steps: 60", "steps: 3"), ("validation_crops:\n  fly: [2]\n", ""))
    told = []
    reporting = Reporting(spec, lambda step, loss, waiting: told.append((step, waiting)), lambda step, scores: None)
    none = ValidationPatches(PatchReader([]), (4, 4, 4))
    fit(Specialist(Zeros(), spec), Patches(spec, slowly, none), tmp_path, reporting, StopRequest("blobs"))
    ((step, waiting),) = told
    assert step == 3
    assert 0.2 < waiting <= 1
