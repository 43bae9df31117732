"""Inference: what MONAI's sliding window gives, where it lies in nm, and what happens at borders."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.core.resampling import resample
from ensemble.predict.sliding_window import Output, predict_job
from ensemble.storage.em_pyramids import EM
from registry import new_network
from tests.support.inference import CLASSES, Centre, a_volume, card, empty, job, monai, on_cpu, order, predicted, reader
from tests.support.volumes import write_em


@pytest.mark.parametrize(
    ("shape", "overlap"), [((40, 55, 70), 0.5), ((33, 24, 90), 0.25), ((16, 24, 32), 0.5), ((20, 30, 40), 0)]
)
def test_without_context_it_is_monais_sliding_window(tmp_path, network, shape, overlap) -> None:
    array, grid, em = a_volume(tmp_path, shape)
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card(overlap=overlap))
    assert np.abs(predicted(one, em, network) - monai(array, network, overlap)[order(one)]).max() < 1e-5


class EachSlice(torch.nn.Module):
    """A 2D network over every slice of a patch by itself: the probabilities, averaged over the three axes."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        of_axes = [
            torch.stack([self.network(image).sigmoid() for image in x.unbind(axis)], dim=axis) for axis in (2, 3, 4)
        ]
        return torch.stack(of_axes).mean(0).logit()


def test_a_2d_network_over_planes_is_a_loop_over_slices(tmp_path) -> None:
    array, grid, em = a_volume(tmp_path, (16, 30, 32))
    small = {"channels": [4, 8], "strides": [2]}
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card(planes="zyx", arguments=small))
    torch.manual_seed(0)
    network = new_network(one.model.card).eval()
    expected = monai(array, EachSlice(network.network), 0.5)
    assert np.abs(predicted(one, em, network) - expected[order(one)]).max() < 1e-5


class Mean(torch.nn.Module):
    """The mean over 5 x 5 x 5 voxels, zeros beyond the patch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = torch.nn.functional.avg_pool3d(x, 5, stride=1, padding=2)
        return torch.cat([mean, mean, mean], dim=1)


def test_a_crop_inside_sees_the_em_around_it(tmp_path) -> None:
    array, grid, em = a_volume(tmp_path, (60, 80, 100))
    inside = Box((20, 30, 40), (40, 50, 60))
    one = job(tmp_path, Target("1", "d", grid.sub(inside), CLASSES), em, card(activation="none"))
    expected = ndimage.uniform_filter(array.astype(np.float32) / 255, 5)[inside.slices]
    got = resample(predicted(one, em, Mean())[0], one.stored, grid.sub(inside))
    assert np.abs(got - expected)[[0, -1]].max() < 0.05
    alone = ndimage.uniform_filter(array[inside.slices].astype(np.float32) / 255, 5, mode="constant")
    assert np.abs(alone - expected)[[0, -1]].max() > 0.2  # what a crop without context looks like


@pytest.mark.parametrize(
    "crop",
    [
        Grid((40, 44, 48), (2, 2, 2), (301.3, 250.1, 207.7)),  # finer than the network
        Grid((12, 11, 10), (16, 16, 16), (301.3, 250.1, 207.7)),  # coarser
        Grid((50, 12, 20), (1.74, 16, 8), (301.3, 250.1, 207.7)),  # finer, coarser and equal
    ],
)
@pytest.mark.parametrize("network_nm", [8.0, 6.0])
def test_nothing_shifts_between_em_network_and_target(tmp_path, crop: Grid, network_nm: float) -> None:
    shape = (60, 80, 100)
    grid = Grid(shape, (8, 8, 8), (100, 50, 3))

    def wave(where: Grid) -> np.ndarray:
        z, y, x = np.meshgrid(*(where.centres_nm(a) for a in range(3)), indexing="ij")
        return 0.5 + 0.15 * (np.sin(z / 60) + np.sin(y / 70 + 1) + np.sin(x / 50 + 2))

    write_em(tmp_path, "d", [(np.rint(wave(grid) * 255).astype(np.uint8), grid)])
    em = EM(tmp_path)
    of = card(voxel_size_nm=network_nm, activation="none", patch_voxels=16)
    one = job(tmp_path, Target("1", "d", crop, CLASSES), em, of)
    assert one.fit.exact == (network_nm == 8)
    got = resample(predicted(one, em, Centre())[0], one.stored, crop)
    assert np.abs(got - wave(crop)).max() < 0.012


def test_a_slab_thinner_than_a_patch_is_mirrored(tmp_path, network) -> None:
    array, grid, em = a_volume(tmp_path, (6, 40, 50))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    padded = np.pad(array, ((5, 5), (0, 0), (0, 0)), mode="reflect")
    expected = monai(padded, network)[order(one), 5:11]
    assert np.abs(predicted(one, em, network) - expected).max() < 1e-5


def test_going_on_after_an_interruption_gives_the_same_bits(tmp_path, network) -> None:
    _, grid, em = a_volume(tmp_path, (54, 30, 34))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    undisturbed = predicted(one, em, network)
    for done in (16, 32, 48):
        resumed = predicted(one, em, network, done_planes=done)
        assert np.array_equal(resumed[:, done:], undisturbed[:, done:])


def test_progress_hears_of_every_patch_and_of_planes_as_they_are_written(tmp_path, network) -> None:
    _, grid, em = a_volume(tmp_path, (50, 40, 50))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    told: list[tuple[int, int]] = []
    predict_job(one, on_cpu(network, one, 4), reader(one, em), Output(empty(one)), lambda *step: told.append(step))
    assert sum(patches for patches, _ in told) == one.patches
    planes = [planes for _, planes in told]
    assert planes == sorted(planes)
    assert planes[-1] == one.stored.shape[0]
