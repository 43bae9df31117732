"""Checkpoints that are damaged or hostile: a small corpus of whole ones, and what a seed makes of them."""

import json
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from tests.support.networks_small import NNUNET, UNET, unet

EXECUTED: list[object] = []
"""What a payload that was executed leaves."""


def payload(*arguments: object) -> None:
    EXECUTED.append(arguments)


class Hostile:
    """Unpickled by the usual loader, it would call ``payload``, or ask a shell to leave a trace."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple:
        return self._call


def write_corpus(folder: Path) -> list[Path]:
    """Whole checkpoints of every kind."""
    folder.mkdir()
    state = unet().state_dict()
    settings = {"model": {"name": "UNet", **UNET}, "loss": nn.BCELoss(), "path": folder, "patch_size": (16, 16, 16)}
    lightning = {"pytorch-lightning_version": "2", "state_dict": {f"m.{k}": v for k, v in state.items()}}
    contents = {
        "plain": state,
        "lightning": {**lightning, "hyper_parameters": {**settings, "classes": ["mito", "er"]}},
        "averaged": {"model": state, "ema": {"module": {k: v.clone() for k, v in state.items()}}},
        "hostile": {"state_dict": state, "x": Hostile(payload, 1), "y": Hostile(nn.Linear, 1, 1)},
        "shell": {"state_dict": state, "x": Hostile(shutil.rmtree, str(folder / "nothing"))},
        "whole": unet(),
    }
    for name, content in contents.items():
        for older in (False, True):
            torch.save(content, folder / f"{name}{older:d}.pt", _use_new_zipfile_serialization=not older)
        torch.save(content, folder / f"{name}.late", pickle_protocol=5)
    save_file(state, folder / "safe.safetensors")
    _write_nnunet(folder / "nnunet__3d_fullres", state)
    _write_bundle(folder / "bundle", state)
    return sorted(folder.iterdir())


def _write_nnunet(folder: Path, state: dict[str, Any]) -> None:
    (folder / "fold_0").mkdir(parents=True)
    torch.save({"network_weights": state}, folder / "fold_0" / "checkpoint_final.pth")
    network = {"network_class_name": "a.PlainConvUNet", "arch_kwargs": {**NNUNET, "n_conv_per_stage": 1}}
    plan = {"patch_size": [16] * 3, "spacing": [4] * 3, "normalization_schemes": ["ZScoreNormalization"]}
    plans = {"configurations": {"3d_fullres": {**plan, "architecture": network}}, "transpose_forward": [0, 1, 2]}
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "mito": 1, "er": [1, 2]}}))


def _write_bundle(folder: Path, state: dict[str, Any]) -> None:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    torch.save(state, folder / "models" / "model.pt")
    inputs, outputs = {"image": {"spatial_shape": [16] * 3}}, {"pred": {"channel_def": {"0": "x", "1": "mito"}}}
    metadata = {"network_data_format": {"inputs": inputs, "outputs": outputs}}
    config = {"network_def": {"_target_": "UNet", **UNET, "channels": "@a::b"}, "a": {"b": [4, 8], "c": "$open('x')"}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "configs" / "inference.yaml").write_text(json.dumps(config))


def mutated(corpus: list[Path], seed: int, place: Path) -> Path:
    """One of the corpus, changed at a few places as ``seed`` says, in the new folder ``place``."""
    chance = random.Random(seed)
    whole = chance.choice(corpus)
    place.mkdir()
    target = place / whole.name
    if whole.is_dir():
        shutil.copytree(whole, target)
        file = chance.choice(sorted(path for path in target.rglob("*") if path.is_file()))
    else:
        file = Path(shutil.copy(whole, target))
    if file.suffix in (".json", ".yaml"):
        file.write_text(json.dumps(odd_value(json.loads(file.read_text()), chance)))
    elif zipfile.is_zipfile(file) and chance.random() < 0.7:
        _change_members(file, chance)
    else:
        file.write_bytes(changed_bytes(file.read_bytes(), chance))
    return target


def _change_members(file: Path, chance: random.Random) -> None:
    """The pickle, or seldom another member, of an archive that stays whole."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    inside = next(name for name in members if name.endswith("data.pkl"))
    chosen = inside if chance.random() < 0.9 else chance.choice(sorted(members))
    members[chosen] = changed_bytes(members[chosen], chance)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def changed_bytes(content: bytes, chance: random.Random) -> bytes:
    """The bytes with one to three flips, cuts, repetitions and fragments in them, most near their beginning."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        reach = len(changed) if chance.random() < 0.3 else min(len(changed), 2000)
        at, length = chance.randrange(reach + 1), chance.choice([1, 1, 2, 8, 64])
        kind = chance.randrange(4)
        if kind == 0:
            changed[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del changed[at : at + (length if chance.random() < 0.9 else len(changed))]
        elif kind == 2:
            changed[at:at] = changed[chance.randrange(reach + 1) :][:length]
        else:
            changed[at : at + chance.choice([0, length])] = chance.choice(FRAGMENTS)
    return bytes(changed)


def _nested(depth: int) -> bytes:
    value: tuple = ()
    for _ in range(depth):
        value = (value, value)
    return pickle.dumps(value, 2)[2:-1]


FRAGMENTS = [
    b"cos\nsystem\n(X\x05\x00\x00\x00falsetR",
    b"cposix\nsystem\n(X\x05\x00\x00\x00falsetR",
    b"c__builtin__\neval\n(X\x03\x00\x00\x001+1tR",
    b"c" + payload.__module__.encode() + b"\npayload\n(K\x01tR",
    b"(i" + payload.__module__.encode() + b"\npayload\n",
    b"cbuiltins\ngetattr\n(cpathlib\nPath\nX\x05\x00\x00\x00touchtR",
    b"cbuiltins\nbytearray\n(\x8a\x06\x00\x00\x00\x00\x00\x01tR",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ccollections\nOrderedDict\n)R",
    *(code + (1 << 40).to_bytes(8, "little") for code in (b"\x8d", b"\x8e", b"\x96", b"\x95")),
    *(_nested(60) + end for end in (b"K\x01s", b"\x91", b"Q", b"\x90", b"b", b"R", b"\x81", b"u", b"e", b"a")),
    b"\x8b\xff\xff\xff\x7f",
    b"I" + b"9" * 5000 + b"\n",
    b"\x8a\xff" + b"\x7f" * 255,
    b"G\x7f\xf8\x00\x00\x00\x00\x00\x00",
    b"\xff" * 8,
    b"\x00" * 8,
    b"X\x03\x00\x00\x00\xed\xa0\x80",
    *(bytes([code]) for code in b"()]}.0122NRabcdehijlopqrstu\x80\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94"),
]
"""Calls, lengths that are not there, hashes without end, and every opcode that changes what lies on the stack."""

ODD: list[Any] = [
    *(None, True, -1, 0, 1, 3, 10**30, 1e308, float("nan"), float("inf"), "", "x" * 5000, "\ud800", "mito", "$1", "@a"),
    *([], {}, [[]], [None] * 100, [1] * 70, {"": 0}, [4, 8], [10**6] * 3, {"_target_": "os.system"}, "a.PlainConvUNet"),
    json.loads("[" * 50 + "]" * 50),
]


def odd_value(value: Any, chance: random.Random) -> Any:
    """The value with one or two of the values in it, or their keys, exchanged for odd ones."""
    for _ in range(chance.randint(1, 2)):
        value = _exchanged(value, chance)
    return value


def _exchanged(value: Any, chance: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or chance.random() < 0.15:
        return chance.choice(ODD)
    if isinstance(value, list):
        at = chance.randrange(len(value))
        return [*value[:at], _exchanged(value[at], chance), *value[at + 1 :]]
    key = chance.choice(list(value))
    if chance.random() < 0.1:
        return {name: entry for name, entry in value.items() if name != key}
    return {**value, key: _exchanged(value[key], chance)}
