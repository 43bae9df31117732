"""Training that takes seconds: a spec of a small network."""

from pathlib import Path

from ensemble.train import spec as training_spec
from ensemble.train.training import train
from registry.store import ModelVersion
from tests.support.empty_registry import store_in

SPEC = """\
name: blobs
architecture: UNet
arguments: {channels: [4, 8], strides: [2], num_res_units: 1}
classes: [mito, er]
voxel_size_nm: 8
patch_voxels: 16
crops: {fly: [1]}
validation_crops:
  fly: [2]
steps: 60
validate_every: 20
batch_size: 2
learning_rate: 2e-2
loss: bce_dice
"""


def spec_of(folder: Path, *changes: tuple[str, str]) -> training_spec.TrainingSpec:
    text = SPEC
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "spec.yaml"
    path.write_text(text)
    return training_spec.load_spec(path)


def run(spec, data: Path, folder: Path, progress=lambda done, what: None) -> ModelVersion:
    return train(spec, data_root=data, registry=store_in(folder), work=folder / "work", progress=progress)


def weights(folder: Path, version: ModelVersion) -> dict:
    from safetensors.numpy import load_file

    return load_file(store_in(folder).weights(version))
