"""Checkpoints as people hold them, read without running any of what is in them.

Lightning .ckpt, plain state dicts, safetensors, nnU-Net result folders and MONAI bundles. Pickles are read by
torch's own restricted unpickler. What a file holds beside weights (optimizer states, callbacks, configurations) is
never loaded into memory; values of well-known harmless types are put aside unread, and a file with any other is
refused by the name of what it would call.
"""

import io
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open

from ensemble.support import NOT_A_ZIP, CheckpointError, one_line
from registry import monai_bundle, nnunet

CONTAINERS = ("state_dict", "model_state_dict", "network_weights", "model")
SETTINGS = ("hyper_parameters", "hparams", "config", "args", "init_args")
LISTED = 5
_PICKLES = 5  # in torch's older format: three of its own, the object, the keys of its storages
_ZIP = b"PK\x03\x04"
_TORCHSCRIPT = "constants.pkl"
_EXPORTED = ("serialized_exported_program.json", "models/model.json", "archive_format")

_HARMLESS = re.compile(
    r"pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path"
    r"|numpy\.(core|_core)\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)"
    r"|numpy\.(dtype|ndarray|dtypes\.\w+|bool_?|u?int\d*|float\d+)|_codecs\.encode"
    r"|argparse\.Namespace|types\.SimpleNamespace|typing\.Any|uuid\.UUID|decimal\.Decimal|fractions\.Fraction"
    r"|datetime\.(datetime|date|time|timedelta|timezone)|copy_?reg\._reconstructor"
    r"|(__builtin__|builtins)\.(set|frozenset|slice|complex|range|tuple|list|dict|int|float|bool|str|object)"
    r"|omegaconf\.(base|nodes|dictconfig|listconfig)\.\w+|functools\.partial"
    r"|(lightning\.fabric|lightning_fabric|lightning\.pytorch|pytorch_lightning)\.utilities\.\w+\.\w+"
    r"|torch\.nn\.modules\.\w+\.[A-Z]\w+|torch\.optim\.\w+\.[A-Z]\w+|torch\.optim\.[A-Z]\w+"
)
"""What configurations in checkpoints are made of. Each is replaced by ``Unread``, so that none is ever called."""

# What torch.load raises, beside the two kinds it documents, when bytes are not what they should be.
_GARBLED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
)


_MAKES_ANY_SIZE = ("builtins.bytearray",)


def _plain_mapping(*arguments: Any) -> dict[Any, Any]:
    return {}


_MAPPINGS: dict[str, Any] = {
    "collections.defaultdict": _plain_mapping,
    **{
        f"{package}.AttributeDict": dict
        for package in ("lightning.fabric.utilities.data", "lightning_fabric.utilities.data")
    },
    "pytorch_lightning.utilities.parsing.AttributeDict": dict,
}
"""Mappings in configurations, read as plain ones."""


class Unread:
    """Stands where a value of another type was; nothing of it was made."""

    def __new__(cls, *arguments: Any, **named: Any) -> "Unread":
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


@dataclass(frozen=True)
class Tensors:
    """What a checkpoint holds under ``keys``: nothing of it has been executed.

    ``lightning`` says that the keys are those of a LightningModule: a network and whatever else it held.
    ``settings`` are whatever values it keeps beside the weights.
    """

    path: Path
    values: Mapping[str, Any]
    lightning: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def file_of(path: Path) -> Path:
    """The file that holds the weights: ``path``, or in a folder of nnU-Net or a MONAI bundle the one in use."""
    path = Path(path)
    if not path.is_dir():
        return path
    results = nnunet.ResultsFolder.around(path)
    if results is not None:
        return results.checkpoint() if path.absolute() == results.folder else _in_fold(path)
    if monai_bundle.is_bundle(path):
        return monai_bundle.weights_file(path)
    raise CheckpointError(
        f"{path}: cannot read the checkpoint: a folder that is neither nnU-Net's (plans.json, dataset.json) nor a"
        " MONAI bundle (configs/metadata.json); name a file"
    )


def _in_fold(fold: Path) -> Path:
    file = next((fold / name for name in nnunet.FINAL if (fold / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"{fold}: holds no {nnunet.FINAL[0]}; name the checkpoint")
    return file


def read(path: Path) -> Tensors:
    """The weights in a file or folder, told apart by content.

    Tensors lie on the CPU, mapped from the file where its format allows. Raises CheckpointError for a file
    that would run code, is damaged, or holds no weights.
    """
    path = file_of(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the checkpoint: {error.strerror}") from error
    if head[8:9] == b"{" and not head.startswith(_ZIP):
        return _read_safetensors(path)
    return _state_dict(path, _read_pickle(path, zipped=head.startswith(_ZIP)))


def _read_safetensors(path: Path) -> Tensors:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            values = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
            return Tensors(path, values, settings=file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged safetensors file: {one_line(error, 200)}") from error


def _read_pickle(path: Path, *, zipped: bool) -> Any:
    if zipped:
        _check_zip(path)
    # torch.load goes by the name where it ends in .safetensors; what is in the file decides here.
    mapped = zipped and path.suffix != ".safetensors"
    # as torch's unpickler names them, whichever Python wrote them
    called = [name.replace("__builtin__.", "builtins.") for name in _called(path, zipped=zipped)]
    for name in called:
        if name in _MAKES_ANY_SIZE:
            raise CheckpointError(
                f"{path}: refused: it would take any amount of memory by {name}; save only a state_dict()"
            )
    unread: list[Callable[..., Any] | tuple[Callable[..., Any], str]]
    unread = [(Unread, name) for name in called if _HARMLESS.fullmatch(name) and name not in _MAPPINGS]
    unread += [(mapping, name) for name, mapping in _MAPPINGS.items()]
    try:
        with path.open("rb") as file, warnings.catch_warnings(), torch.serialization.safe_globals(unread):
            warnings.simplefilter("ignore")  # what they warn of is refused below
            return torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unsafe(path, error, zipped=zipped)) from error
    except (RuntimeError, *_GARBLED) as error:
        raise CheckpointError(_damaged(path, error)) from error


def _check_zip(path: Path) -> None:
    """Refuse programs, and archives that would take more memory than they are long."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, *NOT_A_ZIP) as error:
        raise CheckpointError(_damaged(path, error)) from error
    inside = [member.filename.partition("/")[2] for member in members]
    if _TORCHSCRIPT in inside or any(name.startswith("code/") for name in inside):
        raise CheckpointError(f"{path}: refused: a TorchScript program carries code; save only its state_dict()")
    if any(
        name in _EXPORTED or name.startswith("data/aotinductor/") for name in inside + [m.filename for m in members]
    ):
        raise CheckpointError(
            f"{path}: refused: a torch.export program carries code; save only the state_dict() of its module"
        )
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError(f"{path}: not a checkpoint, or damaged: a compressed zip, which torch never writes")


def _unsafe(path: Path, error: pickle.UnpicklingError, *, zipped: bool) -> str:
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    called = [named[1]] if named else [name for name in _called(path, zipped=zipped) if not _is_data(name)]
    if not called:
        return _damaged(path, error)
    name = one_line(called[0], 200)
    return f"{path}: refused: unpickling would call {name}, which is not data; save only a state_dict()"


def _is_data(name: str) -> bool:
    return name.startswith(("torch.", "collections.")) or _HARMLESS.fullmatch(name) is not None


def _called(path: Path, *, zipped: bool) -> list[str]:
    """Names a pickle would look up, read off its opcodes without following any."""
    names: list[str] = []
    with suppress(*_GARBLED, RuntimeError, zipfile.BadZipFile, zlib.error), ExitStack() as opened:
        stream: IO[bytes] = opened.enter_context(path.open("rb"))
        if zipped:
            archive = opened.enter_context(zipfile.ZipFile(stream))
            inside = next(name for name in (*archive.namelist(), "data.pkl") if name.endswith("data.pkl"))
            stream = io.BytesIO(archive.read(inside))
        for _ in range(1 if zipped else _PICKLES):
            names += _names(stream)
    return list(dict.fromkeys(names))


def _names(stream: IO[bytes]) -> Iterator[str]:
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif "UNICODE" in opcode.name:
            texts.append(str(argument))


def _damaged(path: Path, error: BaseException) -> str:
    return f"{path}: not a checkpoint, or damaged: {one_line(error, 200)}"


def listed(keys: Iterable[object]) -> str:
    """The first few of some names in a file, which are whatever its author, or a flipped bit, made them."""
    names = [one_line(repr(str(key))[1:-1], 200) for key in keys]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _state_dict(path: Path, content: Any) -> Tensors:
    """The mapping of names to tensors in what a pickle held, at its top or one level down."""
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise CheckpointError(f"{path}: holds a {kind}, not named weights; save a state_dict()")
    lightning = "pytorch-lightning_version" in content
    settings = {
        str(key): value
        for name in SETTINGS
        if isinstance(content.get(name), Mapping)
        for key, value in content[name].items()
    }
    for candidate in (*(content.get(container) for container in CONTAINERS), content):
        if isinstance(candidate, Mapping) and any(isinstance(value, torch.Tensor) for value in candidate.values()):
            values = {str(key): value for key, value in candidate.items()}
            return Tensors(path, values, lightning, settings)
    keys = listed(content) or "nothing"
    where = f"under {', '.join(CONTAINERS)} or at its top"
    raise CheckpointError(f"{path}: holds no weights {where}, only {keys}; save a state_dict()")
