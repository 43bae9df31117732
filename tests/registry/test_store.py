"""The registry on a real sqlite file and behind a real MLflow server: what is registered is found, whole."""

import hashlib
import time
from pathlib import Path

import pytest
import torch

from ensemble.support.errors import CardError, CheckpointError, RegistryError
from registry import networks, weights
from registry.card import dump_card, load_card
from registry.checksums import sha256
from registry.store import Registry
from tests.support.processes import Forked
from tests.support.small_models import ARGUMENTS, card, checkpoint, refusal


def test_what_is_registered_is_found_whole(any_store, tmp_path, request):
    name = f"whole-{request.node.callspec.params['any_store']}"
    path = checkpoint(tmp_path / "c.pt", seed=1)
    version = any_store.register(path, card(name), alias="champion")
    assert (version.name, version.version, version.aliases) == (name, 1, ("champion",))
    assert version.uri == f"models:/{name}/1"
    assert version.card == card(name).model_copy(update={"sha256": version.sha256})

    for reference in (f"models:/{name}@champion", f"models:/{name}/1"):
        assert any_store.resolve(reference) == version
    assert any_store.versions(name) == [version]
    assert version in any_store.versions()

    local = any_store.weights(version)
    assert sha256(local) == version.sha256
    network = weights.load_network(version.card, local)
    saved = torch.load(path, weights_only=True)
    assert all(torch.equal(value, saved[key]) for key, value in network.state_dict().items())


def test_a_version_is_tagged_for_those_who_look_with_mlflow(store, tmp_path):
    version = store.register(checkpoint(tmp_path / "c.pt"), card(classes=("mito", "nuc")))
    tags = store._mlflow.client.get_model_version(version.name, "1").tags
    weights_bytes, patch_bytes = int(tags.pop("weights_bytes")), int(tags.pop("patch_bytes"))
    network = networks.build("UNet", {**ARGUMENTS, "out_channels": 2})
    assert weights_bytes == version.weights_bytes == 4 * sum(t.numel() for t in network.state_dict().values())
    assert patch_bytes == version.patch_bytes > 4 * 16**3 * 2
    assert tags == {
        "classes": "mito,nuc",
        "voxel_size_nm": "4x4x3.36",
        "architecture": "UNet",
        "sha256": version.sha256,
        "card_sha256": hashlib.sha256(store.file(version, "card.yaml").read_bytes()).hexdigest(),
    }


def test_equal_weights_and_card_are_the_version_that_is_there(any_store, tmp_path, request):
    name = f"again-{request.node.callspec.params['any_store']}"
    path = checkpoint(tmp_path / "c.pt")
    first = any_store.register(path, card(name), alias="a")
    assert any_store.register(path, card(name), alias="b").version == 1
    assert any_store.resolve(f"models:/{name}/1").aliases == ("a", "b")
    other_card = any_store.register(path, card(name, overlap=0.25))
    other_weights = any_store.register(checkpoint(tmp_path / "d.pt", seed=9), card(name))
    assert (other_card.version, other_weights.version) == (2, 3)
    assert other_card.sha256 == first.sha256 != other_weights.sha256


def test_an_alias_moves(any_store, tmp_path, request):
    name = f"alias-{request.node.callspec.params['any_store']}"
    any_store.register(checkpoint(tmp_path / "c.pt", 1), card(name), alias="champion")
    any_store.register(checkpoint(tmp_path / "d.pt", 2), card(name), alias="champion")
    assert any_store.resolve(f"models:/{name}@champion").version == 2
    any_store.set_alias(name, "champion", 1, "it is better")
    assert any_store.resolve(f"models:/{name}@champion").version == 1
    assert [version.aliases for version in any_store.versions(name)] == [("champion",), ()]


def test_what_is_not_registered_is_told_with_what_is(any_store, tmp_path, request):
    name = f"known-{request.node.callspec.params['any_store']}"
    any_store.register(checkpoint(tmp_path / "c.pt"), card(name), alias="champion")
    wrong = f"models:/{name}@champoin"
    assert refusal(any_store.resolve, wrong) == (
        f"{wrong}: model {name!r} has no alias 'champoin'; did you mean 'champion'?"
    )
    wrong = f"models:/{name}/7"
    assert refusal(any_store.resolve, wrong) == f"{wrong}: model {name!r} has no version 7; known: 1"
    assert refusal(any_store.resolve, f"models:/{name}x@champion").endswith(f"did you mean {name!r}?")
    assert refusal(any_store.versions, f"{name}x").endswith(f"did you mean {name!r}?")
    assert "has no version 2" in refusal(any_store.set_alias, name, "best", 2, "why")
    for malformed in (name, f"models:/{name}", f"models:/{name}/latest", "models:/a'b@c"):
        assert "write models:/NAME@ALIAS or models:/NAME/VERSION" in refusal(any_store.resolve, malformed)


def test_models_of_other_tools_are_left_alone(store, tmp_path):
    store.register(checkpoint(tmp_path / "c.pt"), card())
    client = store._mlflow.client
    client.create_registered_model("theirs")
    client.create_model_version("theirs", "s3://bucket/theirs")
    assert [version.name for version in store.versions()] == ["mito-l-4nm"]
    assert "another tool registered it" in refusal(store.resolve, "models:/theirs/1")


def _left_behind(store: Registry) -> tuple[list, list]:
    client = store._mlflow.client
    experiment = client.get_experiment_by_name("ensemble models")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    return list(client.search_model_versions()), list(runs)


@pytest.mark.parametrize("alias", ["latest", "v3", "a b", ""])
def test_an_alias_mlflow_would_refuse_is_refused_first(store, tmp_path, alias):
    assert repr(alias) in refusal(store.register, checkpoint(tmp_path / "c.pt"), card(), alias=alias)
    assert _left_behind(store) == ([], [])


def test_a_checkpoint_or_card_that_does_not_fit_leaves_nothing(store, tmp_path):
    path = checkpoint(tmp_path / "c.pt")
    wider = card(arguments={"channels": [4, 16], "strides": [2]})
    assert "of another shape" in refusal(store.register, path, wider, error=CheckpointError)
    odd = card(patch_voxels=15)
    assert "use [16, 16, 16]" in refusal(store.register, path, odd, error=CardError)
    of_others = card(sha256="0" * 64)
    assert "the checkpoint holds other weights" in refusal(store.register, path, of_others, error=CardError)
    assert _left_behind(store) == ([], [])


def test_a_fault_of_the_card_is_placed_in_its_file(store, tmp_path):
    text = dump_card(card()).replace("channels:", "chanels:")
    path = tmp_path / "card.yaml"
    path.write_text(text)
    line = text.splitlines().index("  chanels: [4, 8]") + 1
    weights_path = checkpoint(tmp_path / "c.pt")
    message = refusal(store.register, weights_path, load_card(path), card_path=path, error=CardError)
    assert message.startswith(f"{path}:{line}: arguments.chanels: UNet has no such argument")


@pytest.mark.parametrize("failure", [OSError("No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["log_artifacts", "set_registered_model_alias"])
def test_a_failure_at_any_step_leaves_no_version_and_no_run(store, tmp_path, monkeypatch, step, failure):
    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr(store._mlflow.client, step, fail)
    expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else RegistryError
    with pytest.raises(expected):
        store.register(checkpoint(tmp_path / "c.pt"), card(), alias="champion")
    monkeypatch.undo()
    assert _left_behind(store) == ([], [])


def _register(address: str | None, number: int, ready: str) -> None:
    """Register as soon as all are ready; stdout and stderr hold what this process says while it does."""
    Path(f"ready-{number}").touch()
    while not Path(ready).exists():
        time.sleep(0.001)
    Registry(address).register(Path(f"{number}.pt"), card("shared"))


@pytest.mark.parametrize("kind", ["embedded", "server"])
def test_registrations_from_several_processes_lose_no_version_and_chatter_not(kind, tmp_path, monkeypatch, request):
    """The embedded store lies in the working directory; whoever comes first makes its tables."""
    address = None if kind == "embedded" else request.getfixturevalue("server")
    monkeypatch.chdir(tmp_path)
    processes = []
    for number in range(3):
        checkpoint(tmp_path / f"{number}.pt", seed=number)
        processes.append(Forked(_register, address, number, "all-ready"))
    while len(list(tmp_path.glob("ready-*"))) < len(processes):
        assert all(process.returncode is None for process in processes)
        time.sleep(0.001)
    Path("all-ready").touch()
    assert [process.ended() for process in processes] == [("", "")] * 3
    assert [process.returncode for process in processes] == [0] * 3
    store = Registry(address)
    found = store.versions("shared")
    assert [version.version for version in found] == [1, 2, 3]
    assert len({version.sha256 for version in found}) == 3
    if address is None:
        assert store.tracking_uri == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
        assert all(store.weights(version).is_relative_to(tmp_path / "mlruns" / "artifacts") for version in found)
