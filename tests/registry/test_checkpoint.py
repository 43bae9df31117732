"""Checkpoints are read from whatever people hold, without running code."""

import argparse
import enum
import math
import os
import pathlib
import pickle
import random
import re
import subprocess
import sys
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss, DiceLoss
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ensemble.support.errors import CheckpointError
from registry import checkpoint, weights
from registry.inert_pickle import Unread
from tests.support.networks_small import refusal, same, unet


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
    tensors = checkpoint.read(path)
    assert tensors.lightning
    assert "loss.pos_weight" in tensors.values
    assert same(weights.fit(tensors, unet()), network.state_dict())


def test_a_lightning_checkpoint_of_another_network_lists_what_differs(lightning_checkpoint):
    path, _ = lightning_checkpoint
    message = refusal(weights.fit, checkpoint.read(path), unet(channels=[4, 16]))
    assert message.startswith(f"{path}: these are not the weights of the card's UNet: ")
    assert re.search(r"\d+ of another shape or type \(model\.", message)
    assert "loss.pos_weight" not in message


@pytest.mark.parametrize("container", ["state_dict", "model_state_dict", "model", "network_weights", None])
@pytest.mark.parametrize("prefix", ["", "model.", "module.", "_orig_mod.", "model.net."])
def test_state_dicts_fit_under_any_one_prefix(saved, container, prefix):
    state = unet(seed=1).state_dict()
    content = OrderedDict((prefix + key, value) for key, value in state.items())
    path = saved({container: content, "epoch": 3, "optimizer": {"lr": 0.1}} if container else content)
    assert same(weights.fit(checkpoint.read(path), unet()), state)


@pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors"])
def test_the_container_is_told_by_content_not_by_name(tmp_path, suffix):
    state = unet(seed=1).state_dict()
    torch.save(state, tmp_path / f"zip.{suffix}")
    torch.save(state, tmp_path / f"legacy.{suffix}", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / f"safe.{suffix}")
    for kind in ("zip", "legacy", "safe"):
        assert same(weights.fit(checkpoint.read(tmp_path / f"{kind}.{suffix}"), unet()), state)


def test_half_precision_weights_are_read_as_the_networks_float32(saved):
    state = {key: value.half() for key, value in unet(seed=1).state_dict().items()}
    fitted = weights.fit(checkpoint.read(saved(state)), unet())
    assert {value.dtype for value in fitted.values()} == {torch.float32}
    assert all(torch.equal(fitted[key], state[key].float()) for key in state)


class Runs:
    """Unpickled by the usual loader, it would call ``function(argument)``."""

    def __init__(self, function, argument) -> None:
        self.what = (function, (argument,))

    def __reduce__(self):
        return self.what


class Key:
    """Unpickled by the usual loader, it would be a mapping with this key, whatever its hash costs."""

    def __init__(self, key) -> None:
        self.key = key

    def __reduce__(self):
        return OrderedDict, (), None, None, iter([(self.key, 1)])


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
    message = refusal(checkpoint.read, path)
    assert message.startswith(f"{path}: refused: ")
    assert re.search(rf"would call \S*({named}),", message)
    assert not trace.exists()


def test_a_checkpoint_with_everyday_settings_is_read_and_none_of_them_is_made(saved, tmp_path):
    settings = {"data": tmp_path, "rate": np.float64(0.1), "n": np.arange(3), "loss": nn.BCEWithLogitsLoss()}
    settings |= {"arguments": argparse.Namespace(a=1), "classes": ["mito"], "patch_size": (8, 8, 8)}
    content = {"pytorch-lightning_version": "2", "state_dict": unet().state_dict(), "hyper_parameters": settings}
    read = checkpoint.read(saved(content))
    assert same(weights.fit(read, unet()), unet().state_dict())
    assert {key: read.settings[key] for key in ("classes", "patch_size")} == {
        "classes": ["mito"],
        "patch_size": (8, 8, 8),
    }
    unread = ("data", "rate", "n", "loss", "arguments")
    assert {type(read.settings[key]) for key in unread} == {Unread}


def test_mappings_in_settings_are_read_as_plain_ones(saved):
    from lightning.fabric.utilities.data import AttributeDict

    settings = {"nested": AttributeDict(classes=["mito"]), "counts": defaultdict(list, a=[1])}
    read = checkpoint.read(saved({"state_dict": unet().state_dict(), "hyper_parameters": settings}))
    assert read.settings == {"nested": {"classes": ["mito"]}, "counts": {"a": [1]}}


class Stage(enum.IntFlag):
    A = 1
    B = 2


def hyper_parameters():
    """What people keep in settings, each of which Lightning writes at protocol 2 by names of Python 2 or of helpers."""
    return {
        "types": [int, str, range, object, type(None), bytes, torch.float16, ValueError, UserWarning],
        "values": [range(3), Stage.A | Stage.B, Stage, 2**40, b"x"],
        "losses": [DiceCELoss(sigmoid=True), DeepSupervisionLoss(DiceLoss(other_act=torch.tanh)), math.sqrt],
        "compiled": nn.Sequential(torch.compile(nn.Conv3d(1, 1, 1))),
        "averaged": AveragedModel(nn.Conv3d(1, 1, 1)),
    }


@pytest.mark.parametrize("name", hyper_parameters())
@pytest.mark.parametrize("protocol", [2, 3, 5])
def test_no_setting_that_people_keep_has_a_checkpoint_refused(saved, name, protocol):
    settings = {name: hyper_parameters()[name], "classes": ["mito"]}
    content = {"pytorch-lightning_version": "2.6", "state_dict": unet().state_dict(), "hyper_parameters": settings}
    read = checkpoint.read(saved(content, pickle_protocol=protocol))
    assert same(weights.fit(read, unet()), unet().state_dict())
    assert read.settings["classes"] == ["mito"]


@pytest.mark.parametrize("function", [eval, os.system, subprocess.getoutput, pathlib.Path.touch])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_function_that_acts_is_refused_under_the_name_of_either_python(saved, function, protocol):
    message = refusal(checkpoint.read, saved({**unet().state_dict(), "x": function}, pickle_protocol=protocol))
    assert "refused: unpickling would call " in message
    assert "__builtin__" not in message


def test_what_deepspeed_writes_is_read_from_the_file_or_lightnings_folder(saved, tmp_path):
    state = {f"_forward_module.net.{key}": value for key, value in unet(1).state_dict().items()}
    content = {"module": state, "optimizer": {"fp32": {"w": torch.ones(2, 2)}}, "ds_version": "0.17.4"}
    folder = tmp_path / "best.ckpt" / checkpoint.DEEPSPEED
    folder.mkdir(parents=True)
    saved(content, "best.ckpt/checkpoint/mp_rank_00_model_states.pt")
    assert same(weights.fit(checkpoint.read(folder.parent), unet()), unet(1).state_dict())
    saved(content, "best.ckpt/checkpoint/mp_rank_01_model_states.pt")
    message = refusal(checkpoint.read, folder.parent)
    assert message.startswith(f"{folder}: 2 files *_model_states.pt, each with a part of the weights; join them with")


def test_a_few_bytes_cannot_take_any_amount_of_memory(saved):
    """Not by a length that it names, nor by a tuple of tuples of tuples, which is the key of a mapping."""
    nested = ()
    for _ in range(60):
        nested = (nested, nested)
    content = {"state_dict": unet().state_dict(), "x": Runs(bytearray, 10**12), "y": Runs(dict, [(nested, 1)])}
    path = saved({**content, "z": Key(nested)})
    assert same(weights.fit(checkpoint.read(path), unet()), unet().state_dict())


def test_what_lies_beside_the_weights_takes_no_memory(tmp_path):
    """An optimizer state of 128 MiB is skipped: the process that reads stays small."""
    state = {"exp_avg": torch.zeros(1 << 25)}
    content = {"state_dict": unet().state_dict(), "optimizer_states": [state], "pytorch-lightning_version": "2"}
    torch.save(content, tmp_path / "big.ckpt")
    script = (
        "import resource, sys; from registry import checkpoint; import torch\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); checkpoint.read(sys.argv[1]); print(peak() - before)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "big.ckpt"], capture_output=True, text=True, check=True
    )
    assert int(said.stdout) < 64 << 10  # KiB


def test_an_archive_that_unpacks_to_more_than_it_is_long_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "bomb.pt", "w", 8) as bomb:
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    assert (tmp_path / "bomb.pt").stat().st_size < 100_000
    assert "a compressed zip" in refusal(checkpoint.read, tmp_path / "bomb.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_storage_larger_than_the_file_is_refused(tmp_path, legacy):
    """10 kB that ask for a terabyte: the number of elements is exchanged in the pickle."""
    path = tmp_path / "c.pt"
    torch.save({"a": torch.zeros(77)}, path, _use_new_zipfile_serialization=not legacy)
    asked = b"K\x4d", b"\x8a\x06" + (1 << 40).to_bytes(6, "little")
    if legacy:
        path.write_bytes(path.read_bytes().replace(*asked))
    else:
        with zipfile.ZipFile(path) as whole:
            members = {name: whole.read(name) for name in whole.namelist()}
        with zipfile.ZipFile(path, "w") as changed:
            for name, content in members.items():
                changed.writestr(name, content.replace(*asked) if name.endswith("data.pkl") else content)
    assert refusal(checkpoint.read, path).startswith(f"{path}: not a checkpoint, or damaged: ")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_exported_program_is_refused(tmp_path):
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "p.pt2")
    assert "a torch.export program carries code" in refusal(checkpoint.read, tmp_path / "p.pt2")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_torchscript_program_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "p.pt")
    assert "a TorchScript program carries code" in refusal(checkpoint.read, tmp_path / "p.pt")


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
    assert refusal(checkpoint.read, path).startswith(f"{path}: ")


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
            weights.fit(checkpoint.read(tmp_path / str(i)), unet())
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
        assert "not a checkpoint, or damaged" in refusal(checkpoint.read, tmp_path / f"{name}.ckpt")
    assert "No such file" in refusal(checkpoint.read, tmp_path / "absent.ckpt")
    assert "neither nnU-Net's" in refusal(checkpoint.read, tmp_path)
    assert "holds a list" in refusal(checkpoint.read, saved([1, 2]))
    message = refusal(checkpoint.read, saved({"epoch": 3, "stuff": {}}))
    assert "holds no weights under state_dict" in message
    assert "only epoch, stuff" in message


@pytest.mark.parametrize("size", [checkpoint.MAX_HEADER_BYTES + 1, 70 << 20, 1 << 62])
def test_a_header_that_names_more_tensors_than_any_network_has_is_refused_unread(tmp_path, size):
    (tmp_path / "c.safetensors").write_bytes(size.to_bytes(8, "little") + b'{"0":{"dtype":"U8"')
    with pytest.raises(CheckpointError, match=f"a safetensors header of {size:,} bytes: damaged, or more tensors"):
        checkpoint.read(tmp_path / "c.safetensors")


def test_thousands_of_tensors_are_read(tmp_path):
    save_file({f"{number}": torch.tensor(number) for number in range(5000)}, tmp_path / "c.safetensors")
    assert checkpoint.read(tmp_path / "c.safetensors").values["4999"] == 4999
