"""nnU-Net v2 result folders: read as they lie, and run as nnU-Net runs them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from ensemble.support.errors import CardError
from registry import checkpoint, draft, networks, nnunet, weights
from registry.card import Card
from registry.golden import answer as answer_of
from tests.support.networks_small import NNUNET, refusal

CONFIGURATION = {
    "patch_size": [16, 16, 16],
    "spacing": [8.0, 8.0, 8.0],
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
}


OLDER = {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 4,
    "unet_max_num_features": 320,
    "n_conv_per_stage_encoder": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "conv_kernel_sizes": [[3, 3, 3], [3, 3, 3]],
    "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]],
}


INTENSITIES = {"0": {"mean": 120.0, "std": 40.0, "percentile_00_5": 20.0, "percentile_99_5": 230.0}}


def network(kind: type = PlainConvUNet, channels: int = 3) -> nn.Module:
    """As nnU-Net makes it: from its plans, deep supervision on."""
    torch.manual_seed(1)
    per_stage = {"n_conv_per_stage": 1} if kind is PlainConvUNet else {"n_blocks_per_stage": 1}
    return kind(
        input_channels=1,
        num_classes=channels,
        n_stages=2,
        features_per_stage=[4, 8],
        conv_op=nn.Conv3d,
        kernel_sizes=[[3, 3, 3], [3, 3, 3]],
        strides=[[1, 1, 1], [2, 2, 2]],
        n_conv_per_stage_decoder=[1],
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
        **per_stage,
    )


def results(folder: Path, *, network_kind=PlainConvUNet, labels=None, folds=("fold_0",), **changes) -> Path:
    """A results folder with a checkpoint as nnU-Net writes it: numpy scalars, optimizer state and all."""
    labels = labels or {"background": 0, "mito": 1, "endoplasmic reticulum": 2}
    place = folder / "Dataset001_cells" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    per_stage = "n_conv_per_stage" if network_kind is PlainConvUNet else "n_blocks_per_stage"
    name = f"dynamic_network_architectures.architectures.unet.{network_kind.__name__}"
    architecture = {"network_class_name": name, "arch_kwargs": {**NNUNET, per_stage: [1, 1]}}
    lowest = {**CONFIGURATION, "architecture": architecture, **changes}
    plans = {
        "configurations": {"base": lowest, "3d_fullres": {"inherits_from": "base"}},
        "foreground_intensity_properties_per_channel": INTENSITIES,
        "transpose_forward": [0, 1, 2],
    }
    for fold in folds:
        (place / fold).mkdir(parents=True)
        content = {
            "network_weights": network(network_kind, len(labels)).state_dict(),
            "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}},
            "_best_ema": np.float64(0.8),
            "logging": {"mean_fg_dice": [np.float32(0.5)]},
            "init_args": {"configuration": "3d_fullres", "device": torch.device("cpu")},
            "current_epoch": 1000,
        }
        torch.save(content, place / fold / "checkpoint_final.pth")
    (place / "plans.json").write_text(json.dumps(plans))
    (place / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "EM"}}))
    return place


def loaded(place: Path) -> tuple[Card, nn.Module]:
    values = {**draft.draft_card(place).values, "name": "n"}
    made = Card.model_validate(values)
    net = networks.new_network(made)
    net.load_state_dict(weights.fit(checkpoint.read(place), net))
    return made, net.eval()


def normalised(scheme: str, grey: np.ndarray) -> np.ndarray:
    """nnunetv2/preprocessing/normalization/default_normalization_schemes.py, written out."""
    x = grey.astype(np.float32)
    if scheme == "ZScoreNormalization":
        return (x - x.mean()) / max(x.std(), 1e-8)
    if scheme == "CTNormalization":
        return (np.clip(x, 20, 230) - 120) / 40
    if scheme == "RescaleTo01Normalization":
        return (x - x.min()) / np.clip(x.max() - x.min(), 1e-8, None)
    return x / 255 if scheme == "RGBTo01Normalization" else x


@pytest.mark.parametrize("kind", [PlainConvUNet, ResidualEncoderUNet])
@pytest.mark.parametrize(
    "scheme",
    [
        *("ZScoreNormalization", "CTNormalization", "RescaleTo01Normalization"),
        "NoNormalization",
        "RGBTo01Normalization",
    ],
)
def test_a_patch_is_answered_as_nnunet_answers_it(tmp_path, kind, scheme):
    made, ours = loaded(results(tmp_path, network_kind=kind, normalization_schemes=[scheme]))
    grey = np.random.default_rng(0).integers(30, 220, (16, 16, 16), dtype=np.uint8)
    theirs = network(kind).eval()
    theirs.decoder.deep_supervision = False
    with torch.no_grad():
        expected = theirs(torch.from_numpy(normalised(scheme, grey))[None, None]).softmax(1)[0].numpy()
    answer = answer_of(ours, made, grey, torch.device("cpu"))
    assert np.abs(answer - expected).max() < 1e-5
    assert made.classes == (None, "mito", "er")


SLICED = {
    "conv_op": "torch.nn.modules.conv.Conv2d",
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
    "kernel_sizes": [[3, 3], [3, 3]],
    "strides": [[1, 1], [2, 2]],
}


@pytest.mark.parametrize("older", [False, True])
def test_a_2d_configuration_runs_over_the_slices_of_the_first_axis(tmp_path, older):
    """Each normalised as the whole volume is, and by itself through nnU-Net's network."""
    place = results(tmp_path, patch_size=[16, 32], spacing=[4.0, 4.5])
    arguments = {**NNUNET, **SLICED, "n_conv_per_stage": [1, 1]}
    plans = json.loads((place / "plans.json").read_text())
    base = plans["configurations"]["base"]
    base["architecture"] = {"network_class_name": "PlainConvUNet", "arch_kwargs": arguments}
    if older:
        pieces = {"conv_kernel_sizes": SLICED["kernel_sizes"], "pool_op_kernel_sizes": SLICED["strides"]}
        base |= {**OLDER, "architecture": None, **pieces}
    plans["original_median_spacing_after_transp"] = [30.0, 4.0, 4.5]
    (place / "plans.json").write_text(json.dumps(plans))
    layers = {"conv_op": nn.Conv2d, "norm_op": nn.InstanceNorm2d, "nonlin": nn.LeakyReLU}
    torch.manual_seed(2)
    theirs = PlainConvUNet(input_channels=1, num_classes=3, deep_supervision=False, **{**arguments, **layers}).eval()
    torch.save({"network_weights": theirs.state_dict()}, place / "fold_0" / "checkpoint_final.pth")
    made = draft.draft_card(place)
    described = Card.model_validate({**made.values, "name": "n"})
    assert (described.planes, described.patch_voxels) == ("z", (16, 16, 32))
    assert described.voxel_size_nm == (30, 4, 4.5)
    assert "planes" not in made.asks
    ours = networks.with_weights(described, weights.fit(checkpoint.read(place), networks.blank_for_card(described)))
    grey = np.random.default_rng(0).integers(30, 220, (16, 16, 32), dtype=np.uint8)
    with torch.no_grad():
        slices = [theirs(torch.from_numpy(image)[None, None]) for image in normalised("ZScoreNormalization", grey)]
        expected = torch.stack(slices, dim=2).softmax(1)[0].numpy()
    assert np.abs(answer_of(ours, described, grey, torch.device("cpu")) - expected).max() < 1e-5
    message = refusal(networks.new_network, described.model_copy(update={"planes": None}), error=CardError)
    assert message.endswith("conv_op: Conv2d is of a network of 2 axes; its card needs planes")


def test_older_plans_name_the_same_network(tmp_path):
    place = results(tmp_path, architecture=None, **OLDER)
    made, ours = loaded(place)
    assert made.arguments["features_per_stage"] == [4, 8]
    assert ours.state_dict().keys() == network().state_dict().keys()


def test_regions_overlap_so_they_are_sigmoids_without_a_background(tmp_path):
    place = results(tmp_path, labels={"background": 0, "mito": [1, 2], "mito_lum": [2]})
    torch.save({"network_weights": network(channels=2).state_dict()}, place / "fold_0" / "checkpoint_final.pth")
    made, _ = loaded(place)
    assert (made.activation, made.classes) == ("sigmoid", ("mito", "mito_lum"))


def test_any_part_of_the_folder_names_it(tmp_path):
    place = results(tmp_path, folds=("fold_0", "fold_1"))
    message = refusal(checkpoint.read, place)
    assert "holds 2 folds (fold_0, fold_1); name the checkpoint of one fold" in message
    for path in (place / "fold_1", place / "fold_1" / "checkpoint_final.pth"):
        assert draft.draft_card(path).values["architecture"] == "PlainConvUNet"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": [16, 16]}, "are not as nnU-Net writes them (ValueError spacing [8.0, 8.0, 8.0])"),
        ({"patch_size": [16, 16], "spacing": [8.0, 8.0]}, "(KeyError 'original_median_spacing_after_transp')"),
        ({"patch_size": [16], "spacing": [8.0]}, "patch_size [16] is of neither 2 nor 3 axes"),
        ({"normalization_schemes": ["Odd"]}, "unknown normalisation 'Odd'; known: ZScoreNormalization, CTNorm"),
        ({"normalization_schemes": ["NoNormalization"] * 2}, "a network of 2 input channels; EM has 1"),
        ({"use_mask_for_norm": [True]}, "normalises within a mask"),
        ({"previous_stage": "3d_lowres"}, "the second network of a cascade"),
        ({"spacing": None}, "its configuration says no spacing"),
        ({"architecture": {"network_class_name": "os.system", "arch_kwargs": {}}}, "its network 'system' is none of"),
    ],
)
def test_what_cannot_run_here_is_told(tmp_path, changes, message):
    assert message in refusal(draft.draft_card, results(tmp_path, **changes))


def test_files_that_are_not_nnunets_are_told(tmp_path):
    place = results(tmp_path)
    (place / "plans.json").write_text("{")
    assert "not JSON" in refusal(draft.draft_card, place)
    (place / "plans.json").write_text("[]")
    assert "a list where keys are expected" in refusal(nnunet.ResultsFolder.read, place)


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("dataset.json", {"labels": None}),
        ("dataset.json", {"labels": [1]}),
        ("dataset.json", {}),
        ("plans.json", {"configurations": 3}),
        ("plans.json", {"configurations": {"3d_fullres": {**CONFIGURATION, "architecture": "x"}}}),
        ("plans.json", {"configurations": {"3d_fullres": {**CONFIGURATION, "spacing": ["a", 1, 1]}}}),
        ("plans.json", {"configurations": {"3d_fullres": {**CONFIGURATION, "spacing": [0, 1, 1]}}}),
        ("plans.json", {"configurations": {"3d_fullres": {**CONFIGURATION, "patch_size": ["8", 8, 8]}}}),
        ("plans.json", {"configurations": {"3d_fullres": {**CONFIGURATION, "inherits_from": []}}}),
        ("plans.json", {"configurations": {"3d_fullres": {**CONFIGURATION, "use_mask_for_norm": True}}}),
    ],
)
def test_a_garbled_description_is_one_line(tmp_path, file, keys):
    place = results(tmp_path)
    (place / file).write_text(json.dumps(keys))
    assert str(place) in refusal(draft.draft_card, place)


def test_channels_follow_the_values_of_labels_not_their_order(tmp_path):
    place = results(tmp_path, labels={"er": 2, "background": 0, "mito": 1})
    assert draft.draft_card(place).values["classes"] == [None, "mito", "er"]


def test_odd_names_of_labels_stay_inside_the_comment(tmp_path):
    made = draft.draft_card(results(tmp_path, labels={"background": 0, "mi\ud800to\norigin: x": 1}))
    lines = made.text().splitlines()
    assert not [line for line in lines if line.startswith("origin")]
    made.text().encode("utf-8", "backslashreplace")
