"""A network over a small volume of EM: the job, what it predicts, and MONAI as the oracle."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet

from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.job import Job
from ensemble.plan.network_use import plain_use
from ensemble.plan.plan import make_plan
from ensemble.predict import plane_writer
from ensemble.predict.plane_writer import Quantised
from ensemble.predict.runner import Runner
from ensemble.predict.sliding_window import Network, Output, ReadEM, frame_reader, predict_job
from ensemble.predict.tissues import tissue_of
from ensemble.storage.em_pyramids import EM
from registry.card import Card
from tests.support.volumes import noise, write_em

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


def tiny_network() -> torch.nn.Module:
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
    return make_plan(recipe_file.load_recipe(path), [target], {"m": Known(of)}, em).jobs[0]


def on_cpu(network: torch.nn.Module, one: Job, batch_size: int | None = None) -> Network:
    """The network as a job runs it."""
    runner = Runner.of(network, one, torch.device("cpu"), plain_use(one, "32", "cpu"))
    return Network(runner, batch_size or runner.batch_size())


def reader(one: Job, em: EM) -> ReadEM:
    return frame_reader(one, tissue_of(em, one))


def empty(one: Job, dtype: type = np.uint8) -> np.ndarray:
    """Where the planes of a job go."""
    return np.zeros((len(one.classes), *one.stored.shape), dtype)


def predicted(one: Job, em: EM, network: torch.nn.Module, done_planes: int = 0) -> np.ndarray:
    """Probabilities as floats, before they are stored."""
    out = empty(one, np.float32)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plane_writer, "quantised", lambda p: Quantised(p, p.isnan().any()))
        predict_job(one, on_cpu(network, one), reader(one, em), Output(out, done_planes))
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
