"""Inference: what MONAI's sliding window gives, where it lies in nm, and what happens at borders."""

import errno
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from scipy import ndimage
from volumes import noise, write_em

from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.core.resampling import resample
from ensemble.plan import plan
from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.job import Job
from ensemble.predict import sliding_window as infer
from ensemble.predict.plane_writer import quantised
from ensemble.predict.runner import Runner
from ensemble.storage.em_pyramids import EM
from ensemble.support.errors import EnsembleError, VolumeError
from registry.card import Card

CLASSES = ("mito", "nuc", "er")
PATCH = (16, 24, 32)


@dataclass(frozen=True)
class Known:
    card: Card
    name: str = "tiny"
    version: int = 1
    sha256: str = "0"
    weights_bytes: int = 0
    patch_bytes: int = 0


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return UNet(spatial_dims=3, in_channels=1, out_channels=3, channels=(4, 8), strides=(2,)).eval()


class Centre(torch.nn.Module):
    """Three channels that give back the EM: what comes out lies where it went in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x, x], dim=1)


def card(**changes) -> Card:
    return Card(
        **{
            "name": "tiny",
            "architecture": "UNet",
            "arguments": {},
            "classes": CLASSES,
            "voxel_size_nm": 8,
            "patch_voxels": PATCH,
            "activation": "sigmoid",
            **changes,
        }
    )


def job(tmp_path: Path, target: Target, em: EM, of: Card, tta: str = "none") -> Job:
    path = tmp_path / "r.yaml"
    path.write_text(f"name: r\nsources: {{m: {{model: 'models:/tiny@a', tta: {tta}}}}}\ndefaults: {{source: m}}\n")
    return plan.make_plan(recipe_file.load_recipe(path), [target], {"m": Known(of)}, em).jobs[0]


def predicted(one: Job, em: EM, network: torch.nn.Module, **more) -> np.ndarray:
    """Probabilities as floats, before they are stored."""
    out = np.zeros((len(one.classes), *one.stored.shape), np.float32)
    run = Runner.of(network, one, torch.device("cpu"), "32")
    keep, quantised = quantised, lambda p: p
    try:
        infer.predict_job(one, run, run.batch_size(), infer.frame_reader(one, em.tissue(one)), out, **more)
    finally:
        quantised = keep
    return out


def monai(em: np.ndarray, network: torch.nn.Module, overlap: float = 0.5, patch: tuple = PATCH) -> np.ndarray:
    window = SlidingWindowInferer(patch, overlap=overlap, mode="gaussian")
    with torch.inference_mode():
        inputs = torch.from_numpy(em[None, None].astype(np.float32) / 255)
        return window(inputs, lambda x: torch.sigmoid(network(x)))[0].numpy()


def order(one: Job) -> list[int]:
    return [CLASSES.index(name) for name in one.classes]


def a_volume(tmp_path: Path, shape: tuple[int, int, int]) -> tuple[np.ndarray, Grid, EM]:
    array, grid = noise(shape), Grid(shape, (8, 8, 8), (100, 50, 3))
    write_em(tmp_path, "d", [(array, grid)])
    return array, grid, EM(tmp_path)


@pytest.mark.parametrize(
    ("shape", "overlap"), [((40, 55, 70), 0.5), ((33, 24, 90), 0.25), ((16, 24, 32), 0.5), ((20, 30, 40), 0)]
)
def test_without_context_it_is_monais_sliding_window(tmp_path, network, shape, overlap) -> None:
    array, grid, em = a_volume(tmp_path, shape)
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card(overlap=overlap))
    assert np.abs(predicted(one, em, network) - monai(array, network, overlap)[order(one)]).max() < 1e-5


def test_it_is_stored_within_1_in_510(tmp_path, network) -> None:
    array, grid, em = a_volume(tmp_path, (30, 40, 50))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    run = Runner.of(network, one, torch.device("cpu"), "32")
    stored = np.zeros((3, *one.stored.shape), np.uint8)
    infer.predict_job(one, run, run.batch_size(), infer.frame_reader(one, em.tissue(one)), stored)
    assert np.abs(stored / 255 - monai(array, network)[order(one)]).max() <= 1 / 510 + 1e-5


@pytest.mark.parametrize(("shape", "voxel_nm"), [((61, 50, 70), 8), ((33, 24, 90), 16), ((45, 30, 40), 4)])
def test_partial_sums_on_disk_give_the_same_bytes(tmp_path, network, shape, voxel_nm) -> None:
    _, grid, em = a_volume(tmp_path, shape)
    target = Target("1", "d", Grid(tuple(n * 8 // voxel_nm for n in shape), (voxel_nm,) * 3, grid.origin_nm), CLASSES)
    one = job(tmp_path, target, em, card())
    run = Runner.of(network, one, torch.device("cpu"), "32")
    outs = []
    scratch = tmp_path / "scratch"
    for spill_to in (None, scratch):
        stored = np.zeros((3, *one.stored.shape), np.uint8)
        infer.predict_job(
            one, run, run.batch_size(), infer.frame_reader(one, em.tissue(one)), stored, spill_to=spill_to
        )
        outs.append(stored)
    assert outs[0].any()
    assert np.array_equal(*outs)
    assert not list(scratch.iterdir())


def test_a_disk_without_room_for_partial_sums_is_told(tmp_path, network, monkeypatch) -> None:
    _, grid, em = a_volume(tmp_path, (30, 40, 50))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    run = Runner.of(network, one, torch.device("cpu"), "32")

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("os.posix_fallocate", full)
    stored = np.zeros((3, *one.stored.shape), np.uint8)
    read = infer.frame_reader(one, em.tissue(one))
    with pytest.raises(EnsembleError, match="the disk is full: partial sums need"):
        infer.predict_job(one, run, 1, read, stored, spill_to=tmp_path / "scratch")


@pytest.mark.parametrize("where", ["read", "write"])
def test_what_fails_while_the_network_computes_is_told_as_it_is(tmp_path, network, where: str) -> None:
    _, grid, em = a_volume(tmp_path, (60, 40, 50))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    run = Runner.of(network, one, torch.device("cpu"), "32")
    read = infer.frame_reader(one, em.tissue(one))

    class Full:
        def __setitem__(self, *_: object) -> None:
            raise OSError(errno.ENOSPC, "no space")

    def damaged(block) -> np.ndarray:
        if block[0].start > 0:
            raise VolumeError("chunk 3.0.0 cannot be read")
        return read(block)

    stored = Full() if where == "write" else np.zeros((3, *one.stored.shape), np.uint8)
    with pytest.raises(OSError if where == "write" else VolumeError):
        infer.predict_job(one, run, 1, damaged if where == "read" else read, stored)


class Mean(torch.nn.Module):
    """The mean over 5 x 5 x 5 voxels, zeros beyond the patch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = torch.nn.functional.avg_pool3d(x, 5, stride=1, padding=2)
        return torch.cat([mean, mean, mean], dim=1)


def test_a_crop_inside_sees_the_em_around_it(tmp_path) -> None:
    array, grid, em = a_volume(tmp_path, (60, 80, 100))
    inside = (slice(20, 40), slice(30, 50), slice(40, 60))
    one = job(tmp_path, Target("1", "d", grid.sub(inside), CLASSES), em, card(activation="none"))
    expected = ndimage.uniform_filter(array.astype(np.float32) / 255, 5)[inside]
    got = resample(predicted(one, em, Mean())[0], one.stored, grid.sub(inside))
    assert np.abs(got - expected)[[0, -1]].max() < 0.05
    alone = ndimage.uniform_filter(array[inside].astype(np.float32) / 255, 5, mode="constant")
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


def test_em_that_is_not_there_ends_it_like_its_border(tmp_path, network) -> None:
    array, grid, _ = a_volume(tmp_path / "whole", (64, 64, 64))
    crop = grid.sub((slice(20, 40), slice(20, 40), slice(20, 40)))
    target = Target("1", "d", crop, CLASSES)
    part = array[16:48, :48, 16:]  # what remains when other chunks are absent
    cut = Grid(part.shape, grid.voxel_size_nm, grid.sub((slice(16, 48), slice(0, 48), slice(16, 64))).origin_nm)
    write_em(tmp_path / "cut", "d", [(part, cut)])
    place = Path(tmp_path / "whole/d/d.zarr/recon-1/em/fibsem-uint8/s0")
    for file in place.iterdir():
        if not file.name.startswith("."):
            z, y, x = map(int, file.name.split("."))
            if not (1 <= z < 3 and y < 3 and x >= 1):
                file.unlink()
    a, b = EM(tmp_path / "whole"), EM(tmp_path / "cut")
    jobs = [job(tmp_path, target, e, card()) for e in (a, b)]
    assert jobs[0].lattice.matches(jobs[1].lattice)
    assert np.array_equal(predicted(jobs[0], a, network), predicted(jobs[1], b, network))


def test_a_hole_in_the_crop_is_mirrored_from_its_neighbour_and_told(tmp_path, network) -> None:
    array, grid, em = a_volume(tmp_path, (48, 48, 48))
    place = tmp_path / "d/d.zarr/recon-1/em/fibsem-uint8/s0"
    (place / "1.1.1").unlink()
    target = Target("1", "d", grid, CLASSES)
    one = job(tmp_path, target, em, card())
    assert any("never written" in line for line in em.warnings(one, grid))
    block = em.tissue(one).read((slice(0, 48),) * 3)
    assert (block[16:32, 16:32, 16:32] > 0).all()
    assert np.array_equal(block[:16], array[:16])
    black = EM(tmp_path, absent_is_zero=True)
    assert not black.tissue(job(tmp_path, target, black, card())).read((slice(16, 32),) * 3).any()


def test_nothing_there_or_a_crop_outside_is_told(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (32, 32, 32))
    far = Target("1", "d", replace(grid, origin_nm=(9000, 0, 0)), CLASSES)
    with pytest.raises(VolumeError, match="lies outside the EM"):
        job(tmp_path, far, em, card())
    shutil.rmtree(tmp_path / "d/d.zarr/recon-1/em/fibsem-uint8/s0" / "0.0.0", ignore_errors=True)
    for file in (tmp_path / "d/d.zarr/recon-1/em/fibsem-uint8/s0").glob("[0-9]*"):
        file.unlink()
    with pytest.raises(VolumeError, match="none of the crop's EM is there"):
        job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    with pytest.raises(VolumeError, match="there is no such array"):
        job(tmp_path, Target("1", "other", grid, CLASSES), em, card())


def test_a_truncated_chunk_is_named(tmp_path, network) -> None:
    _, grid, em = a_volume(tmp_path, (32, 32, 32))
    chunk = tmp_path / "d/d.zarr/recon-1/em/fibsem-uint8/s0" / "1.0.1"
    chunk.write_bytes(chunk.read_bytes()[:20])
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    with pytest.raises(VolumeError, match=r"s0: chunk 1\.0\.1 cannot be read"):
        predicted(one, em, network)


def test_going_on_after_an_interruption_gives_the_same_bits(tmp_path, network) -> None:
    _, grid, em = a_volume(tmp_path, (70, 40, 40))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    undisturbed = predicted(one, em, network)
    for done in (16, 32, 64):
        resumed = predicted(one, em, network, done_planes=done)
        assert np.array_equal(resumed[:, done:], undisturbed[:, done:])


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("mirror", 8), ("octahedral", 48)])
def test_augmented_predictions_turn_back_to_where_they_were(tta: str, count: int) -> None:
    of = card(patch_voxels=16, activation="none")
    seen = []

    class Watching(Centre):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x[0, 0].clone())
            return super().forward(x)

    run = Runner(Watching(), of, (0,), tta, torch.device("cpu"))
    patch = torch.from_numpy(noise((16, 16, 16))) / 255
    assert torch.allclose(run(patch[None])[0, 0], patch, atol=1e-6)
    assert len(seen) == count
    assert len({one.numpy().tobytes() for one in seen}) == count


def test_octahedral_needs_cubes(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (32, 32, 32))
    with pytest.raises(Exception, match="use mirror"):
        job(tmp_path, Target("1", "d", grid, CLASSES), em, card(), tta="octahedral")


def test_softmax_leaves_out_channels_nobody_wants(tmp_path) -> None:
    of = card(classes=(None, "mito", "nuc"), activation="softmax")
    run = Runner(Centre(), of, (1,), "none", torch.device("cpu"))
    assert np.allclose(run(torch.rand(1, *PATCH)).numpy(), 1 / 3)
