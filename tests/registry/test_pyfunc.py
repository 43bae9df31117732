"""MLflow itself loads a registered model and runs it."""

import numpy as np
import pytest
import torch

from ensemble.support.errors import EnsembleError
from registry.golden import answer as answer_of
from registry.pyfunc import PyfuncModel
from registry.weights import load_network
from tests.support.networks_small import card, unet
from tests.support.two_versions import CPU


def test_mlflow_itself_loads_a_model_and_runs_it(both_versions):
    import mlflow

    loaded = mlflow.pyfunc.load_model("models:/m@champion")
    version = both_versions.resolve("models:/m/1")
    golden = both_versions.golden(version)
    answer = loaded.predict(golden.grey)
    assert answer.shape == (1, *golden.grey.shape)  # the channel without a class is left out
    assert np.abs(answer[0] - golden.probabilities[0]).max() < 1e-6
    larger = np.random.default_rng(0).integers(0, 256, (20, 33, 9), dtype=np.uint8)
    assert loaded.predict(larger).shape == (1, 20, 33, 9)
    network = load_network(version.card, both_versions.weights(version))
    assert [tuple(spec.shape) for spec in loaded.metadata.signature.inputs] == [(-1, -1, -1)]
    assert [tuple(spec.shape) for spec in loaded.metadata.signature.outputs] == [(1, -1, -1, -1)]
    assert np.array_equal(loaded.input_example, golden.grey)
    corner = answer_of(network, version.card, larger[:16, :16, :8], CPU)
    assert corner.shape == (2, 16, 16, 8)


def test_a_versions_folder_is_loaded_without_an_address_and_nothing_is_left_behind(
    both_versions, tmp_path, monkeypatch
):
    import mlflow

    version = both_versions.resolve("models:/m/1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    golden = both_versions.golden(version)
    answer = mlflow.pyfunc.load_model(str(both_versions.weights(version).parent)).predict(golden.grey)
    assert np.abs(answer[0] - golden.probabilities[0]).max() < 1e-6
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_one_patch_is_answered_as_the_network_answers_it_and_classes_without_a_name_are_left_out():
    network, described = unet(3).eval(), card(classes=(None, "mito"))
    grey = np.random.default_rng(0).integers(0, 256, (16, 16, 16), dtype=np.uint8)
    answer = PyfuncModel(described, network).predict(grey)
    with torch.no_grad():
        expected = torch.sigmoid(network(torch.from_numpy(grey)[None, None].float() / 255))[0, 1:]
    assert np.allclose(answer, expected.numpy(), atol=1e-5)
    for shape in ((16, 16), (0, 16, 16)):
        with pytest.raises(EnsembleError, match=r"give one volume \(z, y, x\)"):
            PyfuncModel(described, network).predict(np.zeros(shape, np.uint8))
