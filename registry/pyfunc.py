"""Registered models as MLflow itself loads them: ``mlflow.pyfunc.load_model(uri).predict(grey)``.

The folder of a version says, in MLflow's own file ``MLmodel``, that this module loads it. Nothing in it is pickled.
"""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from ensemble.support import EnsembleError
from registry import planes, weights
from registry.card import Card, load_card
from registry.golden import Golden
from registry.version_folder import CARD, WEIGHTS


def write(folder: Path, card: Card, golden: Golden) -> None:
    """Make ``folder``, which holds weights and card, a model that MLflow can load; the golden input is its example."""
    from mlflow.models import Model, ModelSignature
    from mlflow.models.utils import _save_example  # every flavour of MLflow's own calls it
    from mlflow.types import Schema, TensorSpec

    volume = (-1, -1, -1)
    classes = sum(name is not None for name in card.classes)
    grey, probabilities = np.dtype(card.em_dtype or np.uint8), np.dtype(np.float32)
    model = Model(
        signature=ModelSignature(
            Schema([TensorSpec(grey, volume)]), Schema([TensorSpec(probabilities, (classes, *volume))])
        )
    )
    _save_example(model, golden.grey.astype(grey), str(folder))
    model.add_flavor("python_function", loader_module=__name__, python_version=platform.python_version())
    model.save(str(folder / "MLmodel"))
    (folder / "requirements.txt").write_text(f"ensemble-submission=={version('ensemble-submission')}\n")


def _load_pyfunc(folder: str) -> "PyfuncModel":
    """MLflow calls this to load what ``write`` described."""
    card = load_card(Path(folder) / CARD)
    return PyfuncModel(card, weights.load_network(card, Path(folder) / WEIGHTS))


class PyfuncModel:
    """A model over whole arrays: for volumes that fit into memory; builds go a patch at a time."""

    def __init__(self, card: Card, network: nn.Module) -> None:
        self.card = card
        self._network = network
        self._channels = [i for i, name in enumerate(card.classes) if name is not None]

    def predict(self, grey: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Probabilities float32 (class, z, y, x) of EM (z, y, x) at the card's voxel size, its named classes only."""
        from monai.inferers.inferer import SlidingWindowInferer

        grey = np.asarray(grey)
        if grey.ndim != 3 or 0 in grey.shape:
            raise EnsembleError(f"the EM has the shape {grey.shape}; give one volume (z, y, x)")
        patch = self.card.patch_voxels
        lacking = [(0, max(0, p - n)) for p, n in zip(patch, grey.shape, strict=True)]
        normalised = self.card.normalisation.apply(grey.astype(np.float32))
        padded = torch.from_numpy(np.pad(normalised, lacking, mode="reflect"))[None, None]
        slide = SlidingWindowInferer(roi_size=patch, sw_batch_size=1, overlap=self.card.overlap, mode="gaussian")
        with torch.inference_mode():
            # A network of one answer gives one tensor; MONAI's type is for those of several.
            probabilities = cast(torch.Tensor, slide(padded, self._probabilities))
        z, y, x = grey.shape
        return probabilities[0, self._channels, :z, :y, :x].numpy()

    def _probabilities(self, patches: torch.Tensor) -> torch.Tensor:
        return planes.activate(self._network(patches), self.card.activation)
