"""Files that torch.save wrote, in its zip and in its older format: what is pickled, tensors mapped from the file."""

import io
import mmap
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from ensemble.support import NOT_A_ZIP
from registry.inert_pickle import InertUnpickler, Named, Storage, Unread

_MAGIC = 0x1950A86A20F9469CFC6C
_PICKLE, _BYTE_ORDER = "data.pkl", "byteorder"
_DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}

NOT_WHOLE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, TypeError),
    *(RuntimeError, ValueError, struct.error, pickle.UnpicklingError, *NOT_A_ZIP),
)
"""What reading bytes raises that are not what torch.save writes."""


def read_zip(path: Path, names: dict[str, None]) -> Any:
    """What is pickled in a zip; ``names`` takes in all that it would import, also where it then raises NOT_WHOLE."""
    with zipfile.ZipFile(path) as archive:
        inside = next((name for name in archive.namelist() if name.rpartition("/")[2] == _PICKLE), _PICKLE)
        prefix = inside.removesuffix(_PICKLE)
        if prefix + _BYTE_ORDER in archive.namelist() and archive.read(prefix + _BYTE_ORDER) != b"little":
            raise ValueError("numbers of a big-endian machine; save it anew on another")
        file = _Mapped(path)

        @cache
        def numbers(key: str, dtype: torch.dtype) -> Storage:
            info = archive.getinfo(f"{prefix}data/{key}")
            return Storage(file.part(_start(path, info), info.file_size, dtype), dtype)

        return InertUnpickler(io.BytesIO(archive.read(inside)), _storages(numbers), names).load()


def read_older(path: Path, names: dict[str, None]) -> Any:
    """The same of torch's older format: pickles one after the other, then all numbers."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        stream = cast(BinaryIO, mapped)
        kinds: dict[str, torch.dtype] = {}

        def kind(key: str, dtype: torch.dtype) -> Unread:
            kinds[key] = dtype
            return Unread("torch.Storage")

        def load(storage: Callable[[str, torch.dtype], Any]) -> Any:
            return InertUnpickler(stream, _storages(storage), names).load()

        if load(kind) != _MAGIC:
            raise ValueError("a pickle that torch.save did not write")
        _, system = load(kind), load(kind)
        if isinstance(system, dict) and not system.get("little_endian", True):
            raise ValueError("numbers of a big-endian machine; save it anew on another")
        begin = stream.tell()
        load(kind)
        places = {}
        for key in map(_key, load(kind)):
            count, dtype = struct.unpack("<q", stream.read(8))[0], kinds[key]
            if count < 0:
                raise ValueError("fewer numbers than none")
            places[key] = stream.tell(), count * dtype.itemsize
            stream.seek(count * dtype.itemsize, io.SEEK_CUR)
        parts = _Mapped(path)
        stream.seek(begin)
        return load(cache(lambda key, dtype: Storage(parts.part(*places[key], dtype), dtype)))


def _storages(numbers: Callable[[str, torch.dtype], Any]) -> Callable[[Any], Any]:
    """What a persistent id means: ("storage", type, key, device, count), in the older format also a view of it."""

    def storage(pid: Any) -> Any:
        if not isinstance(pid, tuple):
            raise pickle.UnpicklingError("a reference to nothing that torch.save writes")
        if pid[0] == "module":
            return pid[1]
        kind, key = pid[1], _key(pid[2])
        name = kind.name.rpartition(".")[2] if isinstance(kind, Named) else ""
        dtype = _DTYPES.get(name.removesuffix("Storage"))
        if dtype is None or (len(pid) > 5 and pid[5] is not None):
            return Unread(f"torch.{name}")
        return numbers(key, dtype)

    return storage


def _key(key: Any) -> str:
    """The name of a storage: a text or a number, nothing that could become as long as its author likes."""
    if type(key) not in (str, int):
        raise pickle.UnpicklingError("a storage whose name is none")
    return str(key)


def _start(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the content of a member begins."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        name, extra = struct.unpack("<26xHH", file.read(30))
    return int(info.header_offset + 30 + name + extra)


class _Mapped:
    """A file whose parts are mapped, or copied where that cannot be: in all no more than it is long."""

    def __init__(self, path: Path) -> None:
        self._path, size = path, path.stat().st_size
        self._whole = cast(torch.UntypedStorage, torch.UntypedStorage.from_file(str(path), False, size))
        self._may_copy = size

    def part(self, start: int, size: int, dtype: torch.dtype) -> torch.UntypedStorage:
        """Bytes of the file. Raises ValueError for more than it has, or the same to be copied again and again."""
        if size < 0 or start + size > self._whole.nbytes():
            raise ValueError("more numbers than the file is long")
        if start % dtype.itemsize == 0 or size == 0:
            return cast(torch.UntypedStorage, self._whole[start : start + size])
        self._may_copy -= size
        if self._may_copy < 0:
            raise ValueError("the same numbers again and again")
        with self._path.open("rb") as file:
            file.seek(start)
            content = torch.frombuffer(bytearray(file.read(size)), dtype=torch.uint8)
        return content.untyped_storage()
