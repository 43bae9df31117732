"""Networks are built as named, and weights are read without running code and fit key by key or not at all."""

import importlib.util
import inspect
import os
import pathlib
import pickle
import random
import re
import zipfile
from collections import OrderedDict

import pytest
import torch
from monai.networks import nets
from safetensors.torch import load_file, save_file
from torch import nn

from ensemble.errors import CardError, CheckpointError
from registry import networks, weights
from registry.card import ARCHITECTURES, Card

torch.set_num_threads(2)

UNET = {"channels": [4, 8], "strides": [2], "out_channels": 2}
DYNUNET = {
    "kernel_size": [3, 3, 3, 3],
    "strides": [1, 2, 2, 2],
    "upsample_kernel_size": [2, 2, 2],
    "filters": [4, 8, 8, 8],
    "deep_supervision": True,
    "deep_supr_num": 2,
    "out_channels": 2,
}
SMALL = {
    "UNet": UNET,
    "DynUNet": DYNUNET,
    "SegResNet": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1], "out_channels": 2},
    "SwinUNETR": {"feature_size": 12, "depths": [1, 1, 1, 1], "out_channels": 2},
    "MedNeXt": {"init_filters": 4, "kernel_size": 3, "deep_supervision": True, "out_channels": 2},
}
EDGE = {"SwinUNETR": 64, "MedNeXt": 32}
HAS_EINOPS = importlib.util.find_spec("einops") is not None


def card(**changes) -> Card:
    values = {
        "name": "m",
        "architecture": "UNet",
        "arguments": UNET,
        "classes": ("mito", None),
        "voxel_size_nm": 4,
        "patch_voxels": 16,
        "activation": "sigmoid",
    }
    return Card(**{**values, **changes})


def unet(seed: int = 0, **changes) -> nn.Module:
    torch.manual_seed(seed)
    return networks.build("UNet", {**UNET, **changes})


@pytest.fixture
def saved(tmp_path):
    """Write ``content`` with torch.save; gives the path."""

    def saved(content, name="c.pt", **options) -> pathlib.Path:
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return saved


def refusal(call, *arguments, error=CheckpointError) -> str:
    with pytest.raises(error) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def misfit(path, network: nn.Module | None = None) -> str:
    return refusal(weights.fit, weights.read(path), network or unet())


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# -- networks


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_answers_with_one_tensor_of_the_patch(architecture):
    if architecture == "SwinUNETR" and not HAS_EINOPS:
        pytest.skip("MONAI's SwinUNETR runs only with einops")
    network = networks.build(architecture, SMALL[architecture]).eval()
    assert isinstance(network, getattr(nets, architecture))
    edge = EDGE.get(architecture, 16)
    with torch.no_grad():
        answer = network(torch.rand(1, 1, edge, edge, edge))
    assert isinstance(answer, torch.Tensor)
    assert answer.shape == (1, 2, edge, edge, edge)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_blank_network_has_the_same_keys_and_shapes_and_no_memory(architecture):
    blank = networks.blank(architecture, SMALL[architecture])
    built = networks.build(architecture, SMALL[architecture])
    assert all(value.is_meta for value in blank.state_dict().values())
    assert {k: (v.shape, v.dtype) for k, v in blank.state_dict().items()} == {
        k: (v.shape, v.dtype) for k, v in built.state_dict().items()
    }
    assert not any(value.is_meta for value in [*built.parameters(), *built.buffers()])


def test_tensors_are_counted_while_they_live():
    with networks._Alive() as alive:
        first = torch.zeros(100)  # 400 bytes
        second = first + 1  # 800
        second += 1
        first = second.view(10, 10)[1:] * 2  # 1,160; then the zeros go
        assert alive.most_bytes == 1160
        del second
        third = torch.cat([first, first])  # 360 + 720
        assert alive.most_bytes == 1160
        fourth = torch.cat([third, third])  # and 1,440
    assert alive.most_bytes == 360 + 720 + fourth.numel() * 4


@pytest.mark.skipif(HAS_EINOPS, reason="einops is installed")
def test_a_missing_package_is_named():
    swin = card(architecture="SwinUNETR", arguments=SMALL["SwinUNETR"], patch_voxels=64)
    assert "einops" in refusal(networks.for_card, swin)


def test_monai_names_the_arguments_the_registry_relies_on():
    for architecture in ARCHITECTURES:
        known = inspect.signature(getattr(nets, architecture)).parameters
        assert {"spatial_dims", "in_channels", "out_channels"} <= set(known)


@pytest.mark.parametrize(
    ("architecture", "arguments", "message"),
    [
        ("Unet", UNET, "architecture: unknown network 'Unet'; did you mean 'UNet'?"),
        (
            "UNet",
            {**UNET, "chanels": [4]},
            "arguments.chanels: UNet has no such argument; did you mean 'channels'?",
        ),
        ("UNet", {"channels": [4, 8], "out_channels": 2}, "arguments: UNet needs the argument 'strides'"),
        (
            "UNet",
            {**UNET, "channels": [4]},
            "arguments: UNet refuses them: the length of `channels` should be no less than 2",
        ),
        ("UNet", {**UNET, "channels": [4, 10**9]}, "arguments.channels[1]: 1000000000 is out of bounds"),
        ("UNet", {**UNET, "channels": [65536] * 4, "strides": [2] * 3}, "more than 2e+09 parameters"),
        ("SegResNet", {"blocks_down": [60000], "blocks_up": []}, "or 5000 tensors; make it smaller"),
        ("SwinUNETR", {**SMALL["SwinUNETR"], "depths": [1] * 1000}, "1000 entries"),
        ("SegResNet", {"norm": ["nonsense", {}]}, "arguments: SegResNet refuses them: "),
        ("MedNeXt", {"blocks_down": "many"}, "arguments: MedNeXt refuses them: "),
        ("UNet", {**UNET, "kernel_size": -3}, "arguments: UNet refuses them: "),
    ],
)
def test_wrong_arguments_are_told_in_one_line_before_memory_is_taken(architecture, arguments, message):
    assert message in refusal(networks.build, architecture, arguments, error=CardError)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("mito",)}, "arguments.out_channels: must be 1, not 2: the card lists 1 classes"),
        ({"arguments": {**UNET, "in_channels": 3}}, "arguments.in_channels: must be 1, not 3: EM has"),
        ({"arguments": {**UNET, "spatial_dims": 2}}, "arguments.spatial_dims: must be 3, not 2"),
        ({"patch_voxels": (16, 15, 16)}, "patch_voxels: UNet does not take patches of [16, 15, 16]: "),
        ({"patch_voxels": (16, 15, 16)}, "; use [16, 16, 16]"),
    ],
)
def test_a_card_that_does_not_fit_its_network(changes, message):
    text = refusal(networks.for_card, card(**changes), error=CardError)
    assert text.startswith("card m: ")
    assert message in text


def test_channels_follow_from_the_classes_if_the_card_does_not_say():
    arguments = {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}
    three = card(architecture="SegResNet", arguments=arguments, classes=("mito", "nuc", None))
    with torch.no_grad():
        assert networks.for_card(three).eval()(torch.rand(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)


def test_activations_give_probabilities():
    outputs = torch.tensor([0.0, 2.0]).reshape(1, 2, 1, 1, 1)
    assert networks.activate(outputs, "sigmoid").flatten().tolist() == pytest.approx([0.5, 0.880797])
    assert networks.activate(outputs, "softmax").flatten().tolist() == pytest.approx([0.119203, 0.880797])
    assert networks.activate(outputs, "none").flatten().tolist() == [0.0, 2.0]


def test_the_golden_answer_is_that_of_the_network_on_normalised_grey():
    network = unet().eval()
    described = card(patch_voxels=(16, 48, 32), normalisation={"subtract": 128, "divide": 64})
    golden = networks.golden(network, described)
    assert golden.grey.shape == (16, 32, 32)
    assert golden.grey.dtype == "uint8"
    with torch.no_grad():
        expected = torch.sigmoid(network((torch.tensor(golden.grey)[None, None] - 128.0) / 64.0))[0]
    assert torch.allclose(torch.from_numpy(golden.probabilities), expected, atol=1e-6)
    assert (networks.golden(network, described).grey == golden.grey).all()


def test_activation_none_is_refused_for_outputs_that_are_no_probabilities():
    described = card(activation="none", normalisation={"divide": 0.01})
    assert "card m: activation: 'none' says" in refusal(networks.golden, unet(), described, error=CardError)


# -- reading


@pytest.fixture(scope="module")
def lightning_checkpoint(tmp_path_factory):
    """What Lightning's Trainer writes for a module that also holds a loss with a buffer; and the network."""
    import lightning

    class Specialist(lightning.LightningModule):
        def __init__(self, rate: float = 0.1) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = unet(seed=3)
            self.loss = nn.BCEWithLogitsLoss(pos_weight=torch.ones(1))

        def training_step(self, batch):
            return self.loss(self.net(batch), torch.ones(1, 2, 8, 8, 8))

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=self.hparams.rate)

    module = Specialist()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path_factory.mktemp("lightning"),
    )
    trainer.fit(module, torch.utils.data.DataLoader(torch.rand(1, 1, 8, 8, 8)))
    path = tmp_path_factory.mktemp("checkpoint") / "best.ckpt"
    trainer.save_checkpoint(path)
    return path, module.net


def test_a_lightning_checkpoint_gives_its_network_and_leaves_the_loss(lightning_checkpoint):
    path, network = lightning_checkpoint
    tensors = weights.read(path)
    assert tensors.lightning
    assert "loss.pos_weight" in tensors.values
    assert same(weights.fit(tensors, unet()), network.state_dict())


def test_a_lightning_checkpoint_of_another_network_lists_what_differs(lightning_checkpoint):
    path, _ = lightning_checkpoint
    message = refusal(weights.fit, weights.read(path), unet(channels=[4, 16]))
    assert message.startswith(f"{path}: these are not the weights of the card's UNet: ")
    assert re.search(r"\d+ of another shape or type \(model\.", message)
    assert "loss.pos_weight" not in message


@pytest.mark.parametrize("container", ["state_dict", "model_state_dict", "model", "network_weights", None])
@pytest.mark.parametrize("prefix", ["", "model.", "module.", "_orig_mod.", "model.net."])
def test_state_dicts_fit_under_any_one_prefix(saved, container, prefix):
    state = unet(seed=1).state_dict()
    content = OrderedDict((prefix + key, value) for key, value in state.items())
    path = saved({container: content, "epoch": 3, "optimizer": {"lr": 0.1}} if container else content)
    assert same(weights.fit(weights.read(path), unet()), state)


@pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors"])
def test_the_container_is_told_by_content_not_by_name(tmp_path, suffix):
    state = unet(seed=1).state_dict()
    torch.save(state, tmp_path / f"zip.{suffix}")
    torch.save(state, tmp_path / f"legacy.{suffix}", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / f"safe.{suffix}")
    for kind in ("zip", "legacy", "safe"):
        assert same(weights.fit(weights.read(tmp_path / f"{kind}.{suffix}"), unet()), state)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_weights_of_every_architecture_survive_saving(tmp_path, architecture):
    network = networks.build(architecture, SMALL[architecture])
    state = network.state_dict()
    weights.save(state, tmp_path / "w.safetensors")
    blank = networks.blank(architecture, SMALL[architecture])
    again = weights.fit(weights.read(tmp_path / "w.safetensors"), blank)
    assert same(again, state)


def test_half_precision_weights_are_read_as_the_networks_float32(saved):
    state = {key: value.half() for key, value in unet(seed=1).state_dict().items()}
    fitted = weights.fit(weights.read(saved(state)), unet())
    assert {value.dtype for value in fitted.values()} == {torch.float32}
    assert all(torch.equal(fitted[key], state[key].float()) for key in state)


# -- refusing


class Runs:
    """Unpickled by the usual loader, it would call ``function(argument)``."""

    def __init__(self, function, argument) -> None:
        self.what = (function, (argument,))

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (os.mkdir, "posix.mkdir"),
        (pathlib.Path.touch, "getattr|touch"),
        (eval, "eval"),
        (os.system, "posix.system"),
    ],
)
@pytest.mark.parametrize("form", ["zip", "legacy", "bare", "nested", "lightning"])
def test_a_pickle_that_would_run_code_is_refused_and_nothing_runs(tmp_path, function, named, form):
    trace = tmp_path / "trace"
    argument = {
        os.mkdir: str(trace),
        pathlib.Path.touch: trace,
        eval: f"open({str(trace)!r}, 'w')",
        os.system: f"touch {trace}",
    }[function]
    hostile = Runs(function, argument)
    path = tmp_path / "hostile.ckpt"
    content = {
        "nested": {"state_dict": {**unet().state_dict(), "extra": [hostile]}},
        "lightning": {"pytorch-lightning_version": "2.6", "state_dict": {}, "callbacks": {"x": hostile}},
    }.get(form, hostile)
    if form == "bare":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    message = refusal(weights.read, path)
    assert message.startswith(f"{path}: refused: ")
    assert re.search(rf"would call \S*({named}),", message)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_torchscript_program_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "p.pt")
    assert "a TorchScript program carries code" in refusal(weights.read, tmp_path / "p.pt")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safe"])
@pytest.mark.parametrize("left", [0.9, 0.5, 0.02, 0.0])
def test_truncated_files_are_refused(tmp_path, kind, left):
    path = tmp_path / f"{kind}.ckpt"
    state = unet().state_dict()
    if kind == "safe":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * left)])
    assert refusal(weights.read, path).startswith(f"{path}: ")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safe"])
def test_garbled_files_are_refused_or_read_but_never_end_in_a_traceback(tmp_path, kind):
    state = unet().state_dict()
    path = tmp_path / "whole"
    if kind == "safe":
        save_file(state, path)
    else:
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=kind == "zip")
    whole, chance, refused = path.read_bytes(), random.Random(0), []
    for i in range(300):
        content = bytearray(whole)
        for _ in range(3):
            content[chance.randrange(1500)] = chance.randrange(256)
        (tmp_path / str(i)).write_bytes(content)
        try:
            weights.fit(weights.read(tmp_path / str(i)), unet())
        except CheckpointError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert not any("\n" in message for message in refused)


def test_what_is_no_checkpoint_is_refused(tmp_path, saved):
    (tmp_path / "text.ckpt").write_text("not weights, but a letter\n" * 10)
    (tmp_path / "noise.ckpt").write_bytes(bytes(range(256)) * 4)
    with zipfile.ZipFile(tmp_path / "other.ckpt", "w") as archive:
        archive.writestr("a.txt", "hello")
    for name in ("text", "noise", "other"):
        assert "not a checkpoint, or damaged" in refusal(weights.read, tmp_path / f"{name}.ckpt")
    assert "No such file" in refusal(weights.read, tmp_path / "absent.ckpt")
    assert "cannot read" in refusal(weights.read, tmp_path)
    assert "holds a list" in refusal(weights.read, saved([1, 2]))
    message = refusal(weights.read, saved({"epoch": 3, "stuff": {}}))
    assert "holds no weights under state_dict" in message
    assert "only epoch, stuff" in message


def test_missing_unexpected_and_misshaped_keys_are_all_listed_in_one_line(saved):
    state = unet().state_dict()
    dropped, reshaped, *_ = state
    del state[dropped]
    state[reshaped] = torch.zeros(7)
    state |= {f"stranger{i}": torch.zeros(1) for i in range(8)}
    message = misfit(saved(state))
    assert f"1 missing ({dropped})" in message
    assert "8 unexpected (stranger0, stranger1, stranger2, stranger3, stranger4 and 3 more)" in message
    assert f"1 of another shape or type ({reshaped}: [7] where the network has [4])" in message


def test_in_a_plain_state_dict_nothing_beside_the_network_is_ignored(saved):
    state = {f"net.{key}": value for key, value in unet().state_dict().items()}
    message = refusal(weights.fit, weights.read(saved({**state, "loss.weight": torch.ones(1)})), unet())
    assert "1 unexpected (loss.weight)" in message


def test_two_different_networks_in_one_checkpoint_are_not_guessed_between(saved):
    def checkpoint(*seeds):
        nested = {
            f"{name}.{key}": value
            for name, seed in zip(("net", "ema"), seeds, strict=True)
            for key, value in unet(seed).state_dict().items()
        }
        return saved({"pytorch-lightning_version": "2.6", "state_dict": nested})

    message = refusal(weights.fit, weights.read(checkpoint(0, 1)), unet())
    assert "under 'ema.', 'net.'" in message
    assert same(weights.fit(weights.read(checkpoint(1, 1)), unet()), unet(1).state_dict())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(saved, bad):
    state = unet().state_dict()
    key = next(iter(state))
    state[key].view(-1)[0] = bad
    assert f"NaN or infinity in 1 of 8 tensors ({key})" in misfit(saved(state))


@pytest.mark.parametrize(
    "value",
    [torch.zeros(4, 1, 3, 3, 3, dtype=torch.int64), torch.zeros(4, 1, 3, 3, 3, device="meta"), 3.0, None],
    ids=["integers", "no data", "number", "null"],
)
def test_values_that_are_no_weights_are_refused(saved, value):
    state = unet().state_dict()
    key = next(k for k, v in state.items() if v.shape == (4, 1, 3, 3, 3))
    message = refusal(weights.fit, weights.read(saved({**state, key: value})), unet())
    assert f"1 of another shape or type ({key}: " in message


def test_a_tensor_with_two_names_must_agree_with_itself(saved):
    network = networks.build("DynUNet", DYNUNET)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    assert same(weights.fit(weights.read(saved(state)), network), network.state_dict())
    twin = next(key for key in state if key.startswith("skip_layers"))
    state[twin] += 1
    assert "are one tensor in the network but differ" in misfit(saved(state), network)


def test_a_small_file_cannot_ask_for_a_large_tensor(saved):
    state = {**unet().state_dict(), "huge": torch.zeros(1).expand(2**40)}
    assert "1 unexpected (huge)" in misfit(saved(state))


# -- keeping


def test_equal_weights_give_equal_bytes(tmp_path):
    state = unet().state_dict()
    weights.save(state, tmp_path / "a")
    weights.save(dict(reversed(state.items())), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert weights.sha256(tmp_path / "a") == weights.sha256(tmp_path / "b")
    assert same(load_file(tmp_path / "a"), state)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    assert "cannot write the weights" in refusal(weights.save, unet().state_dict(), tmp_path / "no" / "w")
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_network_runs_and_asks_for_no_gradients(tmp_path):
    original = unet(seed=5).eval()
    weights.save(original.state_dict(), tmp_path / "w")
    known = card(sha256=weights.sha256(tmp_path / "w"))
    network = weights.load_network(known, tmp_path / "w")
    patch = torch.rand(1, 1, 8, 8, 8)
    assert torch.equal(network(patch), original(patch))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_flipped_bit_is_found_at_load(tmp_path):
    weights.save(unet().state_dict(), tmp_path / "w")
    known = card(sha256=weights.sha256(tmp_path / "w"))
    content = bytearray((tmp_path / "w").read_bytes())
    content[-100] ^= 1
    (tmp_path / "w").write_bytes(content)
    assert "damaged or exchanged" in refusal(weights.load_network, known, tmp_path / "w")
