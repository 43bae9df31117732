"""A training spec: typed, and a slip in it told with its line."""

import subprocess
import sys

import pytest

from ensemble.support.errors import TrainingError
from ensemble.train import spec as training_spec
from tests.support.small_training import SPEC, spec_of


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps:", "stepz:"), "spec.yaml:10: stepz: unknown key; did you mean 'steps'?"),
        (("[mito, er]", "[mitto, er]"), "spec.yaml:4: classes[0]: unknown class 'mitto'; did you mean 'mito'?"),
        (("[mito, er]", "[er, er]"), "spec.yaml:4: classes: class 'er' is there 2 times; name each channel's own"),
        (("steps: 60", "steps: 0"), "spec.yaml:10: steps: must be greater than or equal to 1, not 0"),
        (("2e-2", "fast"), "spec.yaml:13: learning_rate: must be a valid number, not 'fast'"),
        (("bce_dice", "dice"), "spec.yaml:14: loss: 'dice' is not known; did you mean 'bce_dice'?"),
        (("name: blobs", "name: a/b"), "spec.yaml:1: name: 'a/b' is not a name; begin with a letter"),
        (("name: blobs", "name: blobs\nalias: v1"), "spec.yaml:2: alias: the alias 'v1' is reserved by MLflow"),
        (("[1]", "[1, 1]"), "spec.yaml:7: crops: crop 1 of fly is there 2 times; name it once"),
        (("[2]", "[1]"), "spec.yaml:8: validation_crops: crop 1 of fly is trained on, so it cannot"),
        (("steps: 60", "steps: 60\naugment: [flip]"), "spec.yaml:11: augment[0]: 'flip' is not known; known:"),
    ],
)
def test_a_slip_in_a_spec_is_told_with_its_line(tmp_path, change, message):
    with pytest.raises(TrainingError) as error:
        spec_of(tmp_path, change)
    assert str(error.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(error.value)


def test_a_spec_may_say_where_its_data_is_relative_to_itself(tmp_path):
    assert spec_of(tmp_path, ("steps: 60", "steps: 60\ndata: ../em")).data == f"{tmp_path}/../em"
    assert spec_of(tmp_path).data is None


def test_reading_a_spec_imports_neither_torch_nor_mlflow():
    code = (
        "import sys, ensemble.train.spec, ensemble.train.training;"
        "print([m for m in ('torch', 'lightning', 'monai', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_key_of_a_spec_can_be_set_on_the_command_line(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    spec = training_spec.load_spec(path, {"steps": "3", "patch_voxels": "[8, 16, 16]", "precision": "bf16-mixed"})
    assert (spec.steps, spec.patch_voxels, spec.precision) == (3, (8, 16, 16), "bf16-mixed")
    for key, value, message in (
        ("steps", "0", "--set steps=0: must be greater than or equal to 1, not 0"),
        ("stepz", "1", "unknown key; did you mean 'steps'?"),
        ("steps", "!!python/name:os.system", "the tag !!python/name:os.system is not allowed"),
        ("normalisation", "{subtract: mean}", "training sees patches, never a whole image"),
    ):
        with pytest.raises(TrainingError) as caught:
            training_spec.load_spec(path, {key: value})
        assert message in str(caught.value)


@pytest.mark.parametrize(("name", "millions"), [("mednext_mito", 61.8), ("mednext_cos7", 17.6)])
def test_the_guides_networks_are_shipped_as_specs(name, millions):
    from registry import networks

    spec = training_spec.load_spec(name)
    blank = networks.blank_for_card(spec.card())
    kernel = spec.arguments["kernel_size"]
    plain = networks.blank(
        spec.architecture, {**spec.arguments, "kernel_size": 3, "deep_supervision": False, "out_channels": 1}
    )
    assert sum(p.numel() for p in plain.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    assert blank.enc_block_0[0].conv1.kernel_size == (kernel,) * 3
    assert (spec.weight_decay, spec.gradient_clip, spec.accumulate, spec.patience) == (1e-5, 1.0, 4, 50)
    with pytest.raises(TrainingError, match="there is no such training spec; did you mean 'mednext_mito'"):
        training_spec.load_spec("mednext_mitto")
