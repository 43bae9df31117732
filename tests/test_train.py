"""Training: a spec is checked before anything runs, and what comes out is registered, repeatable, resumable."""

import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from annotated import noise, write_em, write_truth
from scipy import ndimage

from ensemble.support.errors import CardError, TrainingError
from ensemble.train import spec as training_spec
from ensemble.train.training import train
from registry.store import ModelVersion, Registry

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


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """EM of dark blobs (mito) in noise, annotated in crop 1 and 2; er is the left half, annotated in crop 1."""
    root = tmp_path_factory.mktemp("data")
    field = ndimage.gaussian_filter(np.random.default_rng(5).standard_normal((32, 32, 64)), 3)
    mito = field > 0.05
    left = np.broadcast_to(np.arange(64) % 32 < 16, mito.shape)
    grey = np.where(mito, 90, 170) + np.where(left, 40, 0) + noise(*mito.shape) / 10
    write_em(root, grey.astype(np.uint8))
    write_truth(root, "mito", mito[..., :32].astype(np.uint8))
    write_truth(root, "er", left[..., :32].astype(np.uint8))
    write_truth(root, "mito", mito[..., 32:].astype(np.uint8), origin_nm=(0, 0, 256), crop="2")
    return root


def spec_of(folder: Path, *changes: tuple[str, str]) -> training_spec.TrainingSpec:
    text = SPEC
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "spec.yaml"
    path.write_text(text)
    return training_spec.load_spec(path)


def store_in(folder: Path) -> Registry:
    return Registry(f"sqlite:///{folder}/mlflow.db")


def run(spec, data: Path, folder: Path, progress=lambda done, what: None) -> ModelVersion:
    return train(spec, data_root=data, store=store_in(folder), work=folder / "work", progress=progress)


def weights(folder: Path, version: ModelVersion) -> dict:
    from safetensors.numpy import load_file

    return load_file(store_in(folder).weights(version))


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
        (("name: blobs", "name: blobs\nalias: v1"), "spec.yaml:2: alias: MLflow reserves 'v1'; use another"),
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


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (("strides: [2]", "stride: [2]"), CardError, "spec.yaml:3: arguments.stride: UNet has no such argument"),
        (("patch_voxels: 16", "patch_voxels: 15"), CardError, "spec.yaml:6: patch_voxels: UNet does not take"),
        (("fly: [1]", "fly: [3]"), TrainingError, "spec.yaml:7: crops.fly[0]: none of mito, er is annotated in crop 3"),
        (("fly: [1]", "bee: [1]"), TrainingError, "spec.yaml:7: crops.bee[0]: none of mito, er"),
        (("[mito, er]", "[mito, nuc]"), TrainingError, "spec.yaml:4: classes[1]: nuc is annotated in none of the"),
        (("steps: 60", "precision: 16-mixed\nsteps: 1"), TrainingError, "spec.yaml:10: precision: 16-mixed needs"),
    ],
)
def test_what_cannot_be_trained_is_told_before_training(tmp_path, data, change, kind, message):
    if "16-mixed" in message and _has_gpu():
        pytest.skip("there is a GPU here")
    with pytest.raises(kind) as error:
        run(spec_of(tmp_path, change), data, tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(error.value)
    assert store_in(tmp_path).versions() == []


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def test_a_class_without_a_voxel_cannot_be_learned(tmp_path):
    write_em(tmp_path, noise(16, 16, 16))
    write_truth(tmp_path, "mito", np.zeros((16, 16, 16), np.uint8))
    spec = spec_of(tmp_path, ("[mito, er]", "[mito]"), ("validation_crops:\n  fly: [2]\n", ""))
    with pytest.raises(TrainingError, match=r"spec.yaml:4: classes\[0\]: mito has not one voxel in the training"):
        run(spec, tmp_path, tmp_path)


def test_a_trained_network_is_registered_with_what_it_learned_and_where(tmp_path, data):
    told = []
    version = run(spec_of(tmp_path), data, tmp_path, lambda done, what: told.append((done, what)))
    card = version.card
    assert (version.name, version.version, version.aliases) == ("blobs", 1, ("champion",))
    assert (card.classes, card.voxel_size_nm, card.patch_voxels) == (("mito", "er"), (8, 8, 8), (16, 16, 16))
    assert (card.trained_on, card.validated_on, card.datasets) == (("1",), ("2",), ("fly",))
    assert card.validation.keys() == {"mito"}  # er is not annotated in the validation crop
    assert card.validation["mito"] > 0.8
    truth = zarr.open(data / "fly/fly.zarr/recon-1/labels/groundtruth/crop1/mito/s0")[:]
    nm3 = np.bincount(ndimage.label(truth, np.ones((3, 3, 3)))[0].ravel())[1:] * 8**3
    powers = dict(zip(*np.unique(np.floor(np.log2(nm3)).astype(int).astype(str), return_counts=True), strict=True))
    assert card.truth_sizes_log2_nm3 == {"mito": powers}
    assert told[0] == (0, "read crop 1 of 1")
    assert [done for done, what in told if what.startswith("validated, Dice 0.")] == [20, 40, 60]
    _check_run(tmp_path, card.notes.split()[-1].rstrip("."))

    again = run(spec_of(tmp_path), data, tmp_path, lambda done, what: pytest.fail("trained again"))
    assert again == version
    assert len(store_in(tmp_path).versions()) == 1


def _check_run(folder: Path, run_id: str) -> None:
    """The run holds the loss curve, the scores of each validation, and the spec."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    recorded = client.get_run(run_id)
    assert recorded.info.status == "FINISHED"
    assert client.get_experiment(recorded.info.experiment_id).name == "ensemble training"
    assert recorded.data.params["learning_rate"] == "0.02"
    losses = client.get_metric_history(run_id, "loss")
    assert [metric.step for metric in losses] == [10, 20, 30, 40, 50, 60]
    assert losses[-1].value < 0.7 * losses[0].value
    assert [metric.step for metric in client.get_metric_history(run_id, "dice_mito")] == [20, 40, 60]
    assert [file.path for file in client.list_artifacts(run_id)] == ["spec.yaml"]


def test_interrupted_training_goes_on_to_the_weights_of_one_that_was_not(tmp_path, data):
    changes = [("steps: 60", "steps: 24"), ("validate_every: 20", "validate_every: 12")]
    changes += [("batch_size: 2", "batch_size: 1\naccumulate: 2\nschedule: cosine")]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    expected = run(spec_of(whole, *changes), data, whole)

    def press_ctrl_c(done: float, what: str) -> None:
        if done == 22:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="training of blobs stopped; the same command goes on"):
        run(spec_of(parts, *changes), data, parts, press_ctrl_c)
    assert store_in(parts).versions() == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    told = []
    version = run(spec_of(parts, *changes), data, parts, lambda done, what: told.append(done))
    assert [done for done in told if done] == [22, 24, 24]
    assert version.sha256 == expected.sha256
    assert version.card.validation == expected.card.validation


def test_another_seed_or_other_data_trains_anew(tmp_path, data):
    short = [("steps: 60", "steps: 2"), ("validation_crops:\n  fly: [2]\n", "")]
    first = run(spec_of(tmp_path, *short), data, tmp_path)
    other = run(spec_of(tmp_path, *short, ("name: blobs", "name: blobs\nseed: 1")), data, tmp_path)
    assert (first.version, other.version) == (1, 2)
    assert first.sha256 != other.sha256
    assert other.card.validation == {}
    renamed = run(spec_of(tmp_path, *short, ("name: blobs", "name: blobs\nseed: 1\nalias: try")), data, tmp_path)
    assert (renamed.version, renamed.aliases) == (2, ("champion", "try"))


def test_a_loss_that_is_no_number_stops_with_one_line(tmp_path, data):
    spec = spec_of(tmp_path, ("learning_rate: 2e-2", "learning_rate: 1e30\ngradient_clip: 0"))
    with pytest.raises(TrainingError, match=r"spec.yaml:13: learning_rate: the loss is no longer finite at step \d+;"):
        run(spec, data, tmp_path)


def test_training_that_gets_no_better_stops_early(tmp_path, data):
    changes = [("2e-2", "1e-12"), ("validate_every: 20", "validate_every: 1\npatience: 2")]
    told = []
    run(spec_of(tmp_path, *changes), data, tmp_path, lambda done, what: told.append(done))
    assert max(told) == 3


def test_two_trainings_do_not_share_a_folder(tmp_path, data):
    from filelock import FileLock

    (tmp_path / "work" / "blobs").mkdir(parents=True)
    with FileLock(tmp_path / "work" / "blobs" / ".lock"), pytest.raises(TrainingError, match="trained there already"):
        run(spec_of(tmp_path), data, tmp_path)


def test_a_disk_that_is_full_is_told_in_one_line_and_nothing_is_registered(tmp_path, data):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill_the_disk(done: float, what: str) -> None:
        if what.startswith("validated"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))

    try:
        with pytest.raises(TrainingError) as error:
            run(spec_of(tmp_path, ("steps: 60", "steps: 1")), data, tmp_path, fill_the_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    place = tmp_path.joinpath("work", "blobs")
    assert str(error.value).startswith(f"{place}: cannot be written: File too large; free space")
    assert store_in(tmp_path).versions() == []
    version = run(spec_of(tmp_path, ("steps: 60", "steps: 1")), data, tmp_path)
    assert version.version == 1


def test_voxels_that_are_not_annotated_teach_nothing():
    import torch

    from ensemble.train.losses import masked_loss

    logits = torch.zeros((1, 2, 1, 1, 3), requires_grad=True)
    target = torch.tensor([[[[[1.0, 0.0, math.nan]]], [[[math.nan] * 3]]]])
    bce = masked_loss(logits, target, "bce")
    assert bce.item() == pytest.approx(math.log(2))
    # soft Dice of the one class that is there: shares 0.5 + 0.5, of which 0.5 are right
    assert masked_loss(logits, target, "bce_dice").item() == pytest.approx(math.log(2) + 1 - (1 + 1) / (2 + 1))
    bce.backward()
    assert logits.grad.flatten().tolist() == pytest.approx([-0.25, 0.25, 0, 0, 0, 0])
    assert masked_loss(logits, torch.full_like(target, math.nan), "bce_dice").item() == 0


def test_answers_at_several_depths_are_averaged_with_halving_weights():
    import torch

    from ensemble.train.losses import supervised_loss

    target = torch.ones((1, 1, 4, 4, 4))
    full, half = torch.zeros((1, 1, 4, 4, 4)), torch.full((1, 1, 2, 2, 2), 50.0)
    expected = (math.log(2) + 0.5 * 0) / 1.5
    assert supervised_loss([full, half], target, "bce").item() == pytest.approx(expected)
    stacked = torch.stack([full, torch.full_like(full, 50.0)], dim=1)
    assert supervised_loss(stacked, target, "bce").item() == pytest.approx(expected)


def test_scores_count_annotated_voxels_at_one_half():
    import torch

    from ensemble.train.crops import SURE, UNKNOWN
    from ensemble.train.losses import overlaps, scores_of

    logits = torch.tensor([3.0, 3.0, 3.0, -3.0, -3.0, 3.0]).reshape(1, 1, 1, 1, 6)
    codes = torch.tensor([SURE, SURE, 0, SURE, 0, UNKNOWN], dtype=torch.uint8).reshape(1, 1, 1, 1, 6)
    counts = overlaps(logits, codes).numpy()
    assert counts.tolist() == [[2, 1, 1]]
    counts = np.concatenate([counts, np.zeros((2, 3), int)])
    scores = scores_of(counts, [True, True, False], ["mito", "er", "ves"])
    assert scores == {
        "mito": {"dice": pytest.approx(2 / 3), "iou": pytest.approx(1 / 2)},
        "er": {"dice": 1, "iou": 1},
    }


def test_reading_a_spec_imports_neither_torch_nor_mlflow():
    code = (
        "import sys, ensemble.train, ensemble.training_spec;"
        "print([m for m in ('torch', 'lightning', 'monai', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_checkpoints_of_the_last_validations_stay_and_tell_where_they_come_from(tmp_path, data):
    from registry import soup

    version = run(spec_of(tmp_path, ("steps: 60", "steps: 60\nkeep: 2")), data, tmp_path)
    files = sorted((tmp_path / "work" / "blobs").glob("step-*.ckpt"))
    assert [file.name for file in files] == ["step-0000040.ckpt", "step-0000060.ckpt"]
    found = [soup.member_in_file(file, version.card) for file in files]
    assert {member.ancestry for member in found} == {frozenset({version.card.origin})}
    soup.check_members(found, same_origin=False)


def test_training_begins_with_the_weights_of_a_registered_model(tmp_path, data):
    base = run(spec_of(tmp_path), data, tmp_path)
    more = ("name: blobs", "name: tuned\nbegin_from: models:/blobs@champion")
    short = ("steps: 60", "steps: 1"), ("2e-2", "1e-9")
    tuned = run(spec_of(tmp_path, more, *short), data, tmp_path)
    assert tuned.card.fine_tuned_from == base.uri
    before, after = weights(tmp_path, base), weights(tmp_path, tuned)
    kept = [key for key in before if "running" not in key and "batches" not in key]
    assert all(np.allclose(before[key], after[key], atol=1e-6) for key in kept)
    other = ("channels: [4, 8]", "channels: [4, 4]")
    with pytest.raises(TrainingError, match=r"spec.yaml:2: begin_from: the arguments of models:/blobs/1 is"):
        run(spec_of(tmp_path, more, other), data, tmp_path)
    with pytest.raises(TrainingError, match=r"spec.yaml:2: begin_from: models:/none@x: no model 'none'"):
        run(spec_of(tmp_path, ("name: blobs", "name: t\nbegin_from: models:/none@x")), data, tmp_path)


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


@pytest.mark.parametrize(("name", "classes"), [("mednext_mito", "[mito]"), ("mednext_cos7", "[mito, er]")])
def test_the_guides_specs_train(tmp_path, data, name, classes):
    """Their networks, patches and steps made small, and the classes those that are annotated here."""
    changes = {
        "classes": classes,
        "name": "small",
        "arguments": "{size: S, init_filters: 4, kernel_size: 5, deep_supervision: true}",
    }
    changes |= {"crops": "{fly: [1]}", "validation_crops": "{fly: [2]}", "voxel_size_nm": "8", "patch_voxels": "32"}
    changes |= {"precision": "'32'", "steps": "2", "accumulate": "1", "validate_every": "1", "learning_rate": "5e-3"}
    version = run(training_spec.load_spec(name, changes), data, tmp_path)
    assert version.card.architecture == "MedNeXtV1"
    assert version.card.validation.keys() == {"mito"}
