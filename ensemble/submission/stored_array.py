"""Zarr v2 arrays inside a submission, decoded chunk by chunk.

Read here and not through the zarr library, because nothing in a submission is trusted (only codecs that
cannot run code are known), every damaged chunk must be told by name, and threads share the work.
"""

import json
import lzma
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numcodecs
import numpy as np
from numcodecs.compat import ensure_contiguous_ndarray

from ensemble.core.grid import Grid
from ensemble.submission.archive import Archive
from ensemble.support.errors import SubmissionError, suggestion

MAX_CHUNK_BYTES = 2**31
MAX_METADATA_BYTES = 2**24
CODECS = (
    *("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"),
    *("adler32", "astype", "crc32", "delta", "fixedscaleoffset", "fletcher32", "packbits", "quantize"),
    "shuffle",
)
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(RuntimeError, ValueError, TypeError, OverflowError, MemoryError),
)


@dataclass(frozen=True)
class Encoding:
    """How an array's chunks are stored; ``codecs`` in the order in which they decode."""

    codecs: tuple[numcodecs.abc.Codec, ...]
    order: str
    separator: str


@dataclass(frozen=True)
class StoredArray:
    """One class of one crop as it lies in a submission; axes z, y, x.

    ``present`` maps the index of every chunk that was written to its file; the others are ``fill_value``.
    ``stray`` are files beside the chunks that belong to none.
    """

    place: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    fill_value: Any
    attributes: Mapping[str, Any]
    encoding: Encoding
    members: Archive
    present: Mapping[tuple[int, ...], str]
    stray: tuple[str, ...]

    @property
    def grid(self) -> Grid:
        """Where its voxels lie. Raises SubmissionError when its attributes do not say."""
        try:
            return Grid(self.shape, self.attributes["voxel_size"], self.attributes["translation"])
        except KeyError as error:
            raise self._fault(f"its attributes lack {error}, so it cannot be placed") from error
        except (TypeError, ValueError) as error:
            raise self._fault(f"voxel_size or translation: {error}") from error

    def key(self, chunk: Sequence[int]) -> str:
        """Name of a chunk's file."""
        return self.encoding.separator.join(map(str, chunk))

    def read_chunk(self, chunk: tuple[int, ...]) -> np.ndarray:
        """A chunk that is present, cut to the shape; read only. Raises SubmissionError when it is damaged."""
        size = math.prod(self.chunks) * self.dtype.itemsize
        try:
            data: Any = self.members.read(self.present[chunk], 2 * size + MAX_METADATA_BYTES)
            for codec in self.encoding.codecs:
                data = codec.decode(data)
            flat = ensure_contiguous_ndarray(data, max_buffer_size=None).reshape(-1).view(np.uint8)
            if flat.size != size:
                raise ValueError(f"it holds {flat.size:,} bytes where a chunk has {size:,}")
        except _DAMAGE as error:
            raise self._fault(f"chunk {self.key(chunk)} cannot be decoded: {_one_line(error)}") from error
        values = flat.view(self.dtype).reshape(self.chunks, order=self.encoding.order)
        return values[tuple(slice(n - i * c) for n, i, c in zip(self.shape, chunk, self.chunks, strict=True))]

    def chunks_in(self, block: Sequence[slice]) -> list[tuple[int, ...]]:
        """Indices of the chunks under a block that are present, in C order."""
        ranges = (range(s.start // c, -(-s.stop // c)) for s, c in zip(block, self.chunks, strict=True))
        return [chunk for chunk in product(*ranges) if chunk in self.present]

    def read(self, block: Sequence[slice]) -> np.ndarray:
        """The block, dtype kept, perhaps read only; bounds inside the shape. Raises SubmissionError."""
        return self.assemble(block, {chunk: self.read_chunk(chunk) for chunk in self.chunks_in(block)})

    def assemble(self, block: Sequence[slice], decoded: Mapping[tuple[int, ...], np.ndarray]) -> np.ndarray:
        """The block from the decoded chunks under it; where none is given it is ``fill_value``."""
        if len(decoded) == 1:
            ((chunk, values),) = decoded.items()
            if self._overlap(block, chunk, values) == tuple(block):
                return values[_shifted(block, self._corner(chunk))]
        fill = np.zeros((), self.dtype) if self.fill_value is None else self.fill_value
        out = np.full([s.stop - s.start for s in block], fill, self.dtype)
        for chunk, values in decoded.items():
            both = self._overlap(block, chunk, values)
            out[_shifted(both, [s.start for s in block])] = values[_shifted(both, self._corner(chunk))]
        return out

    def _corner(self, chunk: tuple[int, ...]) -> list[int]:
        return [i * c for i, c in zip(chunk, self.chunks, strict=True)]

    def _overlap(self, block: Sequence[slice], chunk: tuple[int, ...], values: np.ndarray) -> tuple[slice, ...]:
        return tuple(
            slice(max(s.start, a), min(s.stop, a + n))
            for s, a, n in zip(block, self._corner(chunk), values.shape, strict=True)
        )

    def _fault(self, what: str) -> SubmissionError:
        return SubmissionError(f"{self.members.place}: {self.place}: {what}")


def _shifted(block: Sequence[slice], corner: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(s.start - a, s.stop - a) for s, a in zip(block, corner, strict=True))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def read_json(members: Archive, name: str) -> dict[str, Any]:
    """A metadata file's keys and values. Raises SubmissionError when it holds anything else."""
    try:
        data = json.loads(members.read(name, MAX_METADATA_BYTES))
    except (*_DAMAGE, RecursionError) as error:
        raise SubmissionError(f"{members.place}: {name}: not readable as JSON: {_one_line(error)}") from error
    if not isinstance(data, dict):
        raise SubmissionError(f"{members.place}: {name}: holds no keys and values")
    return data


def open_array(members: Archive, place: str, files: Mapping[str, str]) -> StoredArray:
    """The array at ``place`` made of ``files`` (name beneath it -> member), of which ``.zarray`` is one.

    Raises SubmissionError when its metadata does not tell how to decode it.
    """
    metadata = read_json(members, files[".zarray"])
    attributes = read_json(members, files[".zattrs"]) if ".zattrs" in files else {}
    try:
        if metadata["zarr_format"] != 2:
            raise ValueError(f"zarr_format is {metadata['zarr_format']!r}; write Zarr v2")
        shape, chunks = _sizes(metadata, "shape"), _sizes(metadata, "chunks")
        if len(shape) != len(chunks):
            raise ValueError(f"shape {list(shape)} and chunks {list(chunks)} differ in rank")
        dtype = _number_dtype(metadata["dtype"])
        if math.prod(chunks) * dtype.itemsize > MAX_CHUNK_BYTES:
            raise ValueError(f"chunks {list(chunks)} exceed {MAX_CHUNK_BYTES:,} bytes; use smaller ones")
        encoding = _encoding(metadata)
        fill = metadata["fill_value"]
        if fill is not None:
            np.full((), fill, dtype)
    except KeyError as error:
        raise SubmissionError(f"{members.place}: {place}: its .zarray lacks {error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise SubmissionError(f"{members.place}: {place}: {_one_line(error)}") from error
    present, stray = _sorted_out(files, shape, chunks, encoding.separator)
    return StoredArray(place, shape, chunks, dtype, fill, attributes, encoding, members, present, stray)


def _sizes(metadata: Mapping[str, Any], key: str) -> tuple[int, ...]:
    sizes = metadata[key]
    if not isinstance(sizes, list) or not all(type(n) is int and n > 0 for n in sizes):
        raise ValueError(f"{key} must be a list of whole numbers above 0, not {sizes!r}")
    return tuple(sizes)


def _number_dtype(name: Any) -> np.dtype:
    dtype = np.dtype(name) if isinstance(name, str) else None
    if dtype is None or dtype.kind not in "biuf":
        raise ValueError(f"dtype {name!r} is not one of numbers")
    return dtype


def _encoding(metadata: Mapping[str, Any]) -> Encoding:
    order, separator = metadata["order"], metadata.get("dimension_separator", ".")
    if order not in ("C", "F") or separator not in (".", "/"):
        raise ValueError(f"order {order!r} with dimension_separator {separator!r} is not Zarr v2")
    compressor = metadata["compressor"]
    stages = [*(metadata["filters"] or ()), *([compressor] if compressor is not None else ())]
    return Encoding(tuple(_codec(stage) for stage in reversed(stages)), order, separator)


def _codec(stage: Any) -> numcodecs.abc.Codec:
    name = stage.get("id") if isinstance(stage, dict) else stage
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}{suggestion(str(name), CODECS)}")
    return numcodecs.get_codec(dict(stage))


def _sorted_out(
    files: Mapping[str, str], shape: Sequence[int], chunks: Sequence[int], separator: str
) -> tuple[dict[tuple[int, ...], str], tuple[str, ...]]:
    """The chunks by index, and the files that are none of this array's."""
    counts = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    number = re.compile("0|[1-9][0-9]{0,17}")
    present, stray = {}, []
    for key, member in files.items():
        parts = key.split(separator)
        if len(parts) == len(counts) and all(map(number.fullmatch, parts)):
            index = tuple(map(int, parts))
            if all(i < n for i, n in zip(index, counts, strict=True)):
                present[index] = member
                continue
        if key not in (".zarray", ".zattrs"):
            stray.append(key)
    return present, tuple(sorted(stray))
