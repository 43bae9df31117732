"""Checkpoints as people hold them, read without running any of what is in them.

Lightning .ckpt, plain state dicts, safetensors, nnU-Net result folders and MONAI bundles. Tensors are mapped from the
file, so that what it holds beside weights (optimizer states, callbacks) takes no memory. Objects of other types are put
aside by their names; a file that would call what is no type of data, of Python itself, is refused by that name.
"""

import re
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ensemble.support import NOT_A_ZIP, CheckpointError, one_line
from registry import monai_bundle, nnunet
from registry.omegaconf_values import plain_values
from registry.torch_file import NOT_WHOLE, read_older, read_zip
from registry.weight_choice import SETTINGS, choose

LISTED = 5
MAX_HEADER_BYTES = 8 << 20
"""Of a safetensors file: enough for fifty thousand tensors, where networks here have some hundreds."""
DEEPSPEED = "checkpoint"
"""The folder in which Lightning keeps what DeepSpeed writes."""

_ZIP = b"PK\x03\x04"
_TORCHSCRIPT = "constants.pkl"
_EXPORTED = ("serialized_exported_program.json", "models/model.json", "archive_format")

_DATA = re.compile(
    r"(pathlib|collections|datetime|decimal|fractions|uuid|enum|dataclasses|typing|types|array)\.(_local\.)?\w+"
    r"|_codecs\.encode|argparse\.Namespace|copyreg\.(_reconstructor|__newobj__)|functools\.partial|re\._compile"
    r"|random\.Random|logging\.\w+|inspect\.\w+|_?operator\.(or_|itemgetter|attrgetter)|itertools\.\w+|math\.\w+"
    r"|string\.Template|contextlib\.nullcontext"
    r"|builtins\.(set|frozenset|slice|complex|range|tuple|list|dict|int|float|bool|str|bytes|bytearray|object|type)"
    r"|builtins\.(getattr|NotImplemented|Ellipsis|\w+(Error|Exception|Warning))"
)
"""Names of Python itself that configurations in checkpoints are made of. None is ever looked up or called."""


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
    if (path / DEEPSPEED).is_dir():
        return _of_one_process(path / DEEPSPEED)
    raise CheckpointError(
        f"{path}: cannot read the checkpoint: a folder that is neither nnU-Net's (plans.json, dataset.json) nor a"
        " MONAI bundle (configs/metadata.json); name a file"
    )


def _of_one_process(folder: Path) -> Path:
    """DeepSpeed's file of all weights. Raises CheckpointError where each process kept a part of them."""
    files = sorted(folder.glob("*mp_rank_*_model_states.pt"))
    if len(files) != 1:
        raise CheckpointError(
            f"{folder}: {len(files)} files *_model_states.pt, each with a part of the weights; join them with the"
            " zero_to_fp32.py that lies beside them, and give the file it writes"
        )
    return files[0]


def _in_fold(fold: Path) -> Path:
    file = next((fold / name for name in nnunet.FINAL if (fold / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"{fold}: holds no {nnunet.FINAL[0]}; name the checkpoint")
    return file


def read(path: Path, key: str | None = None) -> Tensors:
    """The weights in a file or folder, told apart by content; ``key`` chooses among several (``weight_choice``).

    Tensors lie on the CPU, mapped from the file where its format allows. Raises CheckpointError for a file
    that would run code, is damaged, holds no weights, or several that can be meant.
    """
    path = file_of(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the checkpoint: {error.strerror}") from error
    if head[8:9] == b"{" and not head.startswith(_ZIP):
        if (header := int.from_bytes(head[:8], "little")) > MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{path}: a safetensors header of {header:,} bytes: damaged, or more tensors than any network here has"
                f" (at most {MAX_HEADER_BYTES:,}); save only the weights of one network"
            )
        return _read_safetensors(path, key)
    return _chosen(path, _read_pickle(path, zipped=head.startswith(_ZIP)), key)


def _read_safetensors(path: Path, key: str | None) -> Tensors:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            settings = file.metadata() or {}
    except (SafetensorError, *NOT_WHOLE) as error:
        raise CheckpointError(f"{path}: damaged safetensors file: {one_line(error, 200)}") from error
    return Tensors(path, values if key is None else choose(path, values, key), settings=settings)


def _read_pickle(path: Path, *, zipped: bool) -> Any:
    if zipped:
        _check_zip(path)
    names: dict[str, None] = {}
    try:
        content = (read_zip if zipped else read_older)(path, names)
    except NOT_WHOLE as error:
        _check_names(path, names)
        raise CheckpointError(_damaged(path, error)) from error
    _check_names(path, names)
    return content


def _check_names(path: Path, names: Iterable[str]) -> None:
    """Refuse a file for a function of Python itself, which no honest checkpoint has, though it was not called."""
    for name in names:
        if name.partition(".")[0] in sys.stdlib_module_names and not _DATA.fullmatch(name):
            raise CheckpointError(
                f"{path}: refused: unpickling would call {one_line(name, 200)}, which is not data; save only a"
                " state_dict()"
            )


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


def _damaged(path: Path, error: BaseException) -> str:
    said = str(error)
    what = said if " " in said else f"{type(error).__name__} {said}".strip()
    return f"{path}: not a checkpoint, or damaged: {one_line(what, 200)}"


def listed(keys: Iterable[object]) -> str:
    """The first few of some names in a file, which are whatever its author, or a flipped bit, made them."""
    names = [one_line(repr(str(key))[1:-1], 200) for key in keys]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _chosen(path: Path, content: Any, key: str | None) -> Tensors:
    """The named tensors in what a pickle held, and what it says beside them."""
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise CheckpointError(f"{path}: holds a {kind}, not named weights; save a state_dict()")
    given = [plain_values(content[name]) for name in SETTINGS if isinstance(content.get(name), Mapping)]
    settings = {name: value for mapping in given for name, value in mapping.items()}
    return Tensors(path, choose(path, content, key), "pytorch-lightning_version" in content, settings)
