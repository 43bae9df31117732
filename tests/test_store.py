"""The registry on a real sqlite file and behind a real MLflow server: what is registered is found, whole."""

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow_server
import numpy as np
import pytest
import torch

from ensemble.support.errors import CardError, CheckpointError, RegistryError
from registry import networks, weights
from registry.card import Card
from registry.runs import BUILDS
from registry.store import Registry

torch.set_num_threads(2)
ARGUMENTS = {"channels": [4, 8], "strides": [2]}
FILES = ["MLmodel", "card.yaml", "golden.npz", "model.safetensors", "requirements.txt"]


def card(name: str = "mito-l-4nm", **changes) -> Card:
    values = {
        "name": name,
        "architecture": "UNet",
        "arguments": ARGUMENTS,
        "classes": ("mito", None),
        "voxel_size_nm": (4, 4, 3.36),
        "patch_voxels": 16,
        "activation": "sigmoid",
        "trained_on": ("601",),
        "validation": {"mito": 0.8},
    }
    return Card(**{**values, **changes})


def checkpoint(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    torch.save(networks.build("UNet", {**ARGUMENTS, "out_channels": 2}).state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> str:
    """An empty sqlite store, its tables in place: making them takes MLflow a second each time."""
    path = tmp_path_factory.mktemp("made") / "mlflow.db"
    store = Registry(f"sqlite:///{path}")
    store.log_run("first", "first", params={}, metrics={}, tags={})
    return str(path)


@pytest.fixture
def store(made, tmp_path) -> Registry:
    """A store of its own for each test, in a folder with a space in its name."""
    folder = tmp_path / "a store"
    folder.mkdir()
    shutil.copy(made, folder / "mlflow.db")
    return Registry(f"sqlite:///{folder / 'mlflow.db'}")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of an MLflow server process on loopback that serves artifacts too."""
    with mlflow_server.started(tmp_path_factory.mktemp("server")) as running:
        yield running.address


@pytest.fixture(params=["sqlite", "server"])
def any_store(request) -> Registry:
    if request.param == "server":
        return Registry(request.getfixturevalue("server"))
    return request.getfixturevalue("store")


def refusal(call, *arguments, error=RegistryError, **named) -> str:
    with pytest.raises(error) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- registering and finding


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
    assert weights.sha256(local) == version.sha256
    network = weights.load_network(version.card, local)
    saved = torch.load(path, weights_only=True)
    assert all(torch.equal(value, saved[key]) for key, value in network.state_dict().items())


def test_a_version_holds_weights_card_and_a_golden_answer(any_store, tmp_path, request):
    name = f"golden-{request.node.callspec.params['any_store']}"
    version = any_store.register(checkpoint(tmp_path / "c.pt"), card(name))
    client = any_store._mlflow.client
    folder = Path(client.download_artifacts(version.run_id, "model", str(tmp_path)))
    assert sorted(path.name for path in folder.iterdir()) == FILES
    with np.load(folder / "golden.npz") as golden:
        grey, expected = golden["input"], golden["output"]
    assert (grey.shape, grey.dtype) == ((16, 16, 16), np.uint8)
    assert (expected.shape, expected.dtype) == ((2, 16, 16, 16), np.float32)
    network = weights.load_network(version.card, folder / "model.safetensors")
    with torch.no_grad():
        answer = torch.sigmoid(network(torch.from_numpy(grey)[None, None].float() / 255))[0].numpy()
    np.testing.assert_allclose(answer, expected, atol=1e-6)


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


# -- nothing half-registered


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
    from registry import card as cards

    text = cards.dump_card(card()).replace("channels:", "chanels:")
    path = tmp_path / "card.yaml"
    path.write_text(text)
    line = text.splitlines().index("  chanels: [4, 8]") + 1
    weights_path = checkpoint(tmp_path / "c.pt")
    message = refusal(store.register, weights_path, cards.load_card(path), card_path=path, error=CardError)
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


def test_a_flipped_bit_is_found_and_registering_again_mends_it(store, tmp_path):
    path = checkpoint(tmp_path / "c.pt")
    version = store.register(path, card())
    local = store.weights(version)
    content = bytearray(local.read_bytes())
    content[-1] ^= 1
    local.write_bytes(content)
    assert "damaged or exchanged" in refusal(store.weights, version, error=CheckpointError)
    mended = store.register(path, card())
    assert mended.version == 2
    assert weights.sha256(store.weights(mended)) == version.sha256
    local.unlink()
    assert "but it is not there" in refusal(store.weights, version)


def test_a_damaged_copy_of_a_servers_file_is_fetched_anew(server, tmp_path):
    store = Registry(server)
    version = store.register(checkpoint(tmp_path / "c.pt"), card("refetch"))
    local = store.weights(version)
    assert local.is_relative_to(tmp_path / "cache")
    local.write_bytes(b"damaged")
    assert weights.sha256(store.weights(version)) == version.sha256


# -- places


REGISTER = """
import sys
from registry.card import Card
from registry.store import BUILDS, Store
card = Card(name="mito", architecture="UNet", arguments={"channels": [4, 8], "strides": [2]},
            classes=("mito", None), voxel_size_nm=4, patch_voxels=16, activation="sigmoid")
Store().register(sys.argv[1], card, alias="champion")
"""


def test_the_embedded_store_lies_in_the_working_directory_and_is_made_without_chatter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Registry()
    assert store.tracking_uri == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert store.versions() == []
    assert "nothing is registered yet" in refusal(store.resolve, "models:/mito@champion")
    assert "nothing is registered yet" in refusal(store.versions, "mito")
    assert not (tmp_path / "mlruns").exists()

    command = [sys.executable, "-c", REGISTER, str(checkpoint(tmp_path / "c.pt"))]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    version = store.resolve("models:/mito@champion")
    assert store.weights(version).is_relative_to(tmp_path / "mlruns" / "artifacts")


def test_the_environment_names_the_store_unless_an_argument_does(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://example.org:5000")
    assert Registry().tracking_uri == "http://example.org:5000"
    assert Registry("sqlite:///other.db").tracking_uri == "sqlite:///other.db"


def test_a_server_that_is_not_there_is_told_within_seconds():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # takes the connection and never answers
        gone = "http://user:secret@127.0.0.1:9"
        for address in (gone, f"http://127.0.0.1:{silent.getsockname()[1]}"):
            begun = time.monotonic()
            message = refusal(Registry(address).versions)
            assert "the MLflow server does not answer" in message
            assert "secret" not in message
            assert time.monotonic() - begun < 15


def test_stores_that_are_none_are_told_in_one_line(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database " * 100)
    assert "file is not a database" in refusal(Registry(f"sqlite:///{tmp_path}/mlflow.db").versions)
    for folder in (str(tmp_path / "mlruns"), f"file:{tmp_path}/mlruns"):
        assert "keeps no registry in plain folders" in refusal(Registry(folder).versions)
    assert "failed" in refusal(Registry("nonsense://x").versions)


# -- builds


def test_a_build_is_a_finished_run_with_all_it_was_given(any_store, tmp_path):
    (tmp_path / "lock.yaml").write_text("models: {}\n")
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "check.json").write_text("{}")
    params = {f"p{i}": str(i) for i in range(130)}
    run_id = any_store.log_run(
        BUILDS,
        "final",
        params=params,
        metrics={"iou/mito": 0.75},
        tags={"git": "abc"},
        artifacts=[tmp_path / "lock.yaml", tmp_path / "checks"],
    )
    client = any_store._mlflow.client
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "final"
    assert client.get_experiment(run.info.experiment_id).name == "ensemble builds"
    assert run.data.params == params
    assert run.data.metrics == {"iou/mito": 0.75}
    assert run.data.tags["git"] == "abc"
    lock = client.download_artifacts(run_id, "lock.yaml", str(tmp_path / "cache"))
    assert Path(lock).read_text() == "models: {}\n"
    assert [item.path for item in client.list_artifacts(run_id, "checks")] == ["checks/check.json"]


def test_a_build_without_its_files_is_not_recorded(store, tmp_path):
    message = refusal(store.log_run, BUILDS, "b", params={}, metrics={}, tags={}, artifacts=[tmp_path / "absent"])
    assert message.startswith(f"{tmp_path / 'absent'}: not there")


# -- several processes


def _register(address: str, path: str, start, answers) -> None:
    start.wait()
    try:
        answers.put(Registry(address).register(Path(path), card("shared")).version)
    except BaseException as error:
        answers.put(repr(error))
        raise


@pytest.mark.parametrize("kind", ["sqlite", "server"])
def test_registrations_from_several_processes_lose_no_version(kind, tmp_path, request):
    fresh = f"sqlite:///{tmp_path}/fresh/mlflow.db"
    address = fresh if kind == "sqlite" else request.getfixturevalue("server")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["registry.networks", "monai.networks.nets", "mlflow"])
    start, answers = context.Barrier(3), context.Queue()
    processes = [
        context.Process(target=_register, args=(address, str(checkpoint(tmp_path / f"{i}.pt", seed=i)), start, answers))
        for i in range(3)
    ]
    for process in processes:
        process.start()
    got = [answers.get(timeout=100) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(got, key=str) == [1, 2, 3]
    found = Registry(address).versions("shared")
    assert [version.version for version in found] == [1, 2, 3]
    assert len({version.sha256 for version in found}) == 3
