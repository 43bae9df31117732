"""Training: what comes out is registered, repeatable and resumable."""

import signal
from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy import ndimage

from ensemble.support.errors import CardError, EnsembleError, TrainingError
from ensemble.train import spec as training_spec
from ensemble.train.run_log import TrainingLog
from ensemble.train.training import _reporting, train
from registry import connection
from tests.support.annotated import noise, write_em, write_truth
from tests.support.empty_registry import store_in
from tests.support.small_training import run, spec_of, weights


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


def test_crops_whose_em_is_of_different_types_are_told(tmp_path):
    for root, dtype in ((tmp_path / "a", np.uint8), (tmp_path / "b", np.int16)):
        write_em(root, noise(16, 16, 16).astype(dtype))
        write_truth(root, "mito", np.ones((16, 16, 16), np.uint8))
    (tmp_path / "b/fly").rename(tmp_path / "a/worm")
    (tmp_path / "a/worm/fly.zarr").rename(tmp_path / "a/worm/worm.zarr")
    change = (
        "crops: {fly: [1]}\nvalidation_crops:\n  fly: [2]\n",
        "crops: {fly: [1]}\nvalidation_crops: {worm: [1]}\n",
    )
    with pytest.raises(TrainingError, match=r"crops: the EM is int16 in worm, uint8 in fly; train on EM of one type"):
        run(spec_of(tmp_path, ("[mito, er]", "[mito]"), change), tmp_path / "a", tmp_path)


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
    grey = zarr.open(data / "fly/fly.zarr/recon-1/em/fibsem-uint8/s0")[:]
    assert (card.em_dtype, card.em_range) == ("uint8", (grey[..., :32].min(), grey[..., :32].max()))
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


def test_two_trainings_do_not_share_a_folder(tmp_path, data):
    from filelock import FileLock

    (tmp_path / "work" / "blobs").mkdir(parents=True)
    with FileLock(tmp_path / "work" / "blobs" / ".lock"), pytest.raises(EnsembleError, match="trained there already"):
        train(spec_of(tmp_path), data_root=data, registry=store_in(tmp_path), work=tmp_path / "work")


def test_a_disk_that_is_full_is_told_in_one_line_and_nothing_is_registered(tmp_path, data, monkeypatch):
    import resource

    monkeypatch.setattr(connection, "ATTEMPTS", 2)
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


def test_training_begins_with_the_weights_of_a_registered_model(tmp_path, data):
    base = run(spec_of(tmp_path, ("steps: 60", "steps: 2")), data, tmp_path)
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


@pytest.mark.parametrize(("name", "classes"), [("mednext_mito", "[mito]"), ("mednext_cos7", "[mito, er]")])
def test_the_guides_specs_train(tmp_path, data, name, classes):
    """Their networks, patches and steps made small, and the classes those that are annotated here."""
    changes = {
        "classes": classes,
        "name": "small",
        "arguments": "{init_filters: 4, kernel_size: 5, deep_supervision: true, blocks: [1, 1, 1, 1, 1, 1, 1, 1, 1]}",
    }
    changes |= {"crops": "{fly: [1]}", "validation_crops": "{fly: [2]}", "voxel_size_nm": "8", "patch_voxels": "32"}
    changes |= {"precision": "'32'", "steps": "2", "accumulate": "1", "validate_every": "2", "learning_rate": "5e-3"}
    version = run(training_spec.load_spec(name, changes), data, tmp_path)
    assert version.card.architecture == "MedNeXtV1"
    assert version.card.validation.keys() == {"mito"}


def test_a_training_that_waits_for_patches_says_so(tmp_path):
    spec, told = spec_of(tmp_path), []
    log = TrainingLog.begin(store_in(tmp_path).runs, spec, "digest", None, [])
    reporting = _reporting(spec, log, lambda done, what: told.append(what))
    reporting._on_loss(10, 0.75, 0.5)
    reporting._on_loss(110, 0.5, 0.04)
    reporting._on_loss(120, 0.25, 0.5)
    assert told == ["loss 0.750", "loss 0.500", "loss 0.250, waits for patches 50% of the time"]
    log.end("FINISHED")
