"""MONAI bundles: plain values are taken, and no expression is evaluated."""

import json

import pytest
import torch

from ensemble.support.errors import CheckpointError
from registry import draft
from registry import monai_bundle as bundles
from tests.support.networks_small import UNET, unet


def bundle(folder, **network):
    """A MONAI bundle; as in many, some of its values are expressions."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    torch.save(unet().state_dict(), folder / "models" / "model.pt")
    outputs = {"pred": {"channel_def": {"0": "background", "1": "mito"}}}
    inputs = {"image": {"spatial_shape": [16, 16, 16]}}
    metadata = {"network_data_format": {"inputs": inputs, "outputs": outputs}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    config = {"network_def": {"_target_": "monai.networks.nets.UNet", **network}, "widths": [4, 8], "strides": [2]}
    (folder / "configs" / "inference.json").write_text(json.dumps(config))


def test_a_bundle_tells_its_network_and_no_expression_of_it_is_evaluated(tmp_path):
    trace = tmp_path / "trace"
    expression = f"$open({str(trace)!r}, 'w')"
    bundle(tmp_path / "b", channels="@widths", strides="@strides", out_channels=2, dropout=expression)
    made = draft.draft_card(tmp_path / "b")
    assert made.values["architecture"] == "UNet"
    assert made.values["arguments"] == {**UNET, "dropout": None}
    assert (made.values["classes"], made.values["patch_voxels"]) == ([None, "mito"], [16, 16, 16])
    assert not trace.exists()


def test_a_bundle_is_known_by_its_files_from_wherever_in_it(tmp_path):
    bundle(tmp_path / "b", channels="@widths", strides="@strides", out_channels=2)
    assert bundles.is_bundle(tmp_path / "b")
    assert not bundles.is_bundle(tmp_path)
    assert bundles.around(tmp_path / "b/models/model.pt") == bundles.around(tmp_path / "b") == tmp_path / "b"
    assert bundles.around(tmp_path) is None
    assert bundles.weights_file(tmp_path / "b") == tmp_path / "b/models/model.pt"
    (tmp_path / "b/models/model.pt").unlink()
    with pytest.raises(CheckpointError, match=r"holds no models/model\.pt; download the bundle with its weights"):
        bundles.weights_file(tmp_path / "b")


def test_a_bundle_may_say_it_in_yaml_and_refer_to_what_lies_deeper(tmp_path):
    bundle(tmp_path / "b")
    (tmp_path / "b/configs/inference.json").unlink()
    (tmp_path / "b/configs/inference.yaml").write_text(
        "imports: [$import glob]\nsizes: {widths: [4, 8]}\nnetwork_def:\n  _target_: UNet\n  spatial_dims: 3\n"
        "  channels: '@sizes::widths'\n  strides: [2]\n  norm: $@sizes\n"
    )
    made = draft.draft_card(tmp_path / "b")
    assert made.values["arguments"] == {"spatial_dims": 3, "channels": [4, 8], "strides": [2], "norm": None}
    (tmp_path / "b/configs/inference.yaml").write_text("network_def: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(CheckpointError, match=r"inference\.yaml:1: "):
        draft.draft_card(tmp_path / "b")
