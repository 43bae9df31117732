"""Batches come in the order in which a training wants them, whoever reads them."""

import os
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from ensemble.support.errors import TrainingError, VolumeError
from ensemble.train import loading
from ensemble.train.crops import Patch
from ensemble.train.lightning_module import Specialist
from ensemble.train.loading import Batches, Patches, Schedule, Turns, Wanted, workers_for
from ensemble.train.views import Exposure, View
from tests.support.annotated import noise
from tests.support.small_crops import spec_of

SPEC = {"steps": 5, "validate_every": 2, "batch_size": 2, "accumulate": 2}


class Numbered:
    """Patches that hold their number, training's as it is and validation's from 100."""

    def __init__(self, count: int = 3) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def patch(self, number: int) -> Patch:
        return self.training(100 + number)

    def training(self, number: int) -> Patch:
        return Patch(np.full((4, 4, 4), number, np.uint8), np.zeros((1, 4, 4, 4), np.uint8), View(turns=number))


def numbers(part) -> list[list[int]]:
    return [batch.grey[:, 0, 0, 0, 0].tolist() for batch in part]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_training_sees_the_same_patches_however_many_processes_read_them(workers):
    patches = Patches(spec_of(**SPEC), Numbered().training, Numbered(), workers)
    part = patches.train_dataloader()
    assert len(part) == 4  # two steps of two batches
    assert numbers(part) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert numbers(patches.val_dataloader()) == [[100, 101], [102, 103]]
    assert numbers(islice(patches.train_dataloader(), 1)) == [[8, 9]]
    patches.close()


def test_patches_are_shown_in_the_same_view_by_who_reads_and_by_who_learns():
    def patch(number: int) -> Patch:
        view = View(flips=(-1,), turns=number, exposure=Exposure(1.1, 0.1, 0.1, number))
        return Patch(noise(4, 4, 4, seed=number), noise(1, 4, 4, 4, seed=number), view)

    wanted = Wanted(of_validation=False, numbers=range(8, 10))
    early, late = (Batches(patch, Numbered(), in_view=in_view)[wanted] for in_view in (True, False))
    assert (late.grey.dtype, late.grey.shape, late.codes.shape) == (torch.uint8, (2, 1, 4, 4, 4), (2, 1, 4, 4, 4))
    assert (late.views, early.views) == ((patch(8).view, patch(9).view), ())
    specialist = Specialist(torch.nn.Identity(), spec_of())
    for a, b in zip(*(specialist.on_after_batch_transfer(batch, 0) for batch in (early, late)), strict=True):
        assert torch.equal(a, b)


def test_batches_of_training_and_validation_follow_each_other_to_the_last_step():
    wanted = list(Schedule(spec_of(**SPEC), judged=3))
    assert [one.of_validation for one in wanted] == [*[False] * 4, *[True] * 2] * 2 + [False] * 2 + [True] * 2
    assert [one.numbers for one in wanted if not one.of_validation] == [range(n, n + 2) for n in range(0, 20, 2)]
    assert list(Schedule(spec_of(**SPEC), judged=3, done=2)) == wanted[6:]
    assert list(Schedule(spec_of(**SPEC), judged=0)) == [one for one in wanted if not one.of_validation]


def test_processes_that_share_a_training_see_each_patch_once():
    spec = spec_of(**SPEC)
    first, second = (list(Schedule(spec, judged=5, turns=Turns(rank, 2))) for rank in range(2))
    assert len(first) == len(second)
    seen = [n for pair in zip(first, second, strict=True) for one in pair if not one.of_validation for n in one.numbers]
    assert seen == list(range(40))
    judged = [n for pair in zip(first[4:6], second[4:6], strict=True) for one in pair for n in one.numbers]
    assert judged == list(range(8))  # of which the last three judge nothing


def test_batches_are_read_by_other_processes():
    class Reader(Numbered):
        def training(self, number: int) -> Patch:
            return Patch(np.full((4, 4, 4), os.getpid(), np.float32), np.zeros((1, 4, 4, 4), np.uint8))

    patches = Patches(spec_of(**SPEC), Reader().training, Reader(), workers=2)
    readers = {batch.grey.max().item() for batch in patches.train_dataloader()}
    assert len(readers) == 2
    assert float(os.getpid()) not in readers
    patches.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_told_as_it_is_by_whoever_reads(workers):
    def damaged(number: int) -> Patch:
        if number == 4:
            raise VolumeError("em/s0: chunk 0.0.0 cannot be read")
        return Numbered().training(number)

    patches = Patches(spec_of(**SPEC), damaged, Numbered(), workers)
    batches = iter(patches.train_dataloader())
    assert numbers(islice(batches, 2)) == [[0, 1], [2, 3]]
    with pytest.raises(VolumeError, match=r"^em/s0: chunk 0\.0\.0 cannot be read$"):
        next(batches)
    patches.close()


def test_a_process_that_is_killed_is_told_in_one_line():
    def killed(number: int) -> Patch:
        os._exit(9)

    patches = Patches(spec_of(**SPEC), killed, Numbered(), workers=1)
    with pytest.raises(
        TrainingError, match=r"^training spec tiny: batch_size: a process that reads patches ended \("
    ) as error:
        next(iter(patches.train_dataloader()))
    assert "\n" not in str(error.value)
    patches.close()


def test_as_many_processes_read_as_have_cores_and_room_for_their_batches(monkeypatch):
    monkeypatch.setattr(loading, "cores", lambda: 16)
    monkeypatch.setattr(loading, "SHARED_MEMORY", Path("/none"))
    assert workers_for(spec_of(patch_voxels=64), on_gpu=False) == 1
    assert workers_for(spec_of(patch_voxels=64), on_gpu=True) == 8
    assert workers_for(spec_of(patch_voxels=64, devices=5), on_gpu=True) == 3
    # 2 × 5 bytes for each of 256³ voxels, twice for each process: three in 1 GiB
    assert workers_for(spec_of(patch_voxels=256, batch_size=2), on_gpu=True) == 3
    assert workers_for(spec_of(patch_voxels=512), on_gpu=True) == 0
    monkeypatch.setattr(loading, "cores", lambda: 1)
    assert workers_for(spec_of(patch_voxels=64), on_gpu=True) == 1


def test_where_processes_share_little_memory_less_is_read_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "SHARED_MEMORY", tmp_path)
    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(loading, "BYTES_AHEAD", 1 << 60)
    assert loading._shared_bytes() == pytest.approx(free / 2, rel=0.2)
    monkeypatch.setattr(loading, "BYTES_AHEAD", 1000)
    assert loading._shared_bytes() == 1000
    assert workers_for(spec_of(patch_voxels=64), on_gpu=False) == 0
