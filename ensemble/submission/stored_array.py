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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numcodecs
import numpy as np
from numcodecs.compat import ensure_contiguous_ndarray
from numpy.typing import NDArray

from ensemble.core import Box, Grid, VoxelsZYX, nm_zyx, zyx
from ensemble.storage import decoded, foreign_chunk, limit_bytes, misnamed
from ensemble.submission.archive import Archive
from ensemble.support import SubmissionError, counted, one_line, suggestion

ChunkIndex = tuple[int, ...]
"""Which chunk of an array, along each of its axes."""

MAX_CHUNK_BYTES = 2**31
MAX_STAGES = 4
CODECS = (
    *("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"),
    *("adler32", "astype", "crc32", "delta", "fixedscaleoffset", "fletcher32", "packbits", "quantize"),
    "shuffle",
)
"""Those that only compute with numbers."""
_NUMBERS = re.compile("[<>|=]?[biuf][0-9]{1,2}")
MAX_METADATA_BYTES = 2**24
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, AssertionError),
    *(MemoryError, SystemError),
)


@dataclass(frozen=True)
class ChunkEncoding:
    """How an array's chunks are stored; ``codecs`` in the order in which they decode."""

    codecs: tuple[numcodecs.abc.Codec, ...]
    order: str
    separator: str


@dataclass(frozen=True)
class StoredArray:
    """One class of one crop as it lies in a submission.

    Its axes should be z, y, x; of any others only single chunks can be read. ``present`` maps the index of
    every chunk that was written to its file; the others are ``fill_value``. ``stray`` are files beside the
    chunks that belong to none.
    """

    place: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    fill_value: Any
    attributes: Mapping[str, Any]
    encoding: ChunkEncoding
    members: Archive
    present: Mapping[ChunkIndex, str]
    stray: tuple[str, ...]

    @property
    def shape_zyx(self) -> VoxelsZYX:
        """Its shape. Raises SubmissionError unless it has three axes."""
        return self._three(self.shape)

    @property
    def chunks_zyx(self) -> VoxelsZYX:
        """Shape of a chunk. Raises SubmissionError unless there are three axes."""
        return self._three(self.chunks)

    def _three(self, sizes: tuple[int, ...]) -> VoxelsZYX:
        if len(sizes) != 3:
            raise self._fault(f"has {counted(len(sizes), 'axis', 'axes')} where three are expected: z, y, x")
        return zyx(sizes)

    @property
    def grid(self) -> Grid:
        """Where its voxels lie. Raises SubmissionError when its attributes do not say."""
        shape = self.shape_zyx
        try:
            return Grid(shape, nm_zyx(self.attributes["voxel_size"]), nm_zyx(self.attributes["translation"]))
        except KeyError as error:
            raise self._fault(f"its attributes lack {error}, so it cannot be placed") from error
        except (TypeError, ValueError) as error:
            raise self._fault(f"voxel_size or translation: {error}") from error

    def key(self, chunk: Sequence[int]) -> str:
        """Name of a chunk's file."""
        return self.encoding.separator.join(map(str, chunk))

    def chunk_box(self, chunk: Iterable[int]) -> Box:
        """The voxels of a chunk, inside the shape."""
        return Box.at(chunk, (1, 1, 1)).of_chunks(self.chunks_zyx).intersect(Box.of_shape(self.shape_zyx))

    def read_chunk(self, chunk: ChunkIndex) -> NDArray[Any]:
        """A chunk that is present, cut to the shape; read only. Raises SubmissionError when it is damaged."""
        size = math.prod(self.chunks) * self.dtype.itemsize
        try:
            data: Any = self.members.read(self.present[chunk], 2 * size + MAX_METADATA_BYTES)
            for codec in self.encoding.codecs:
                data = decoded(codec, data, limit_bytes(size))
            flat = ensure_contiguous_ndarray(data, max_buffer_size=None).reshape(-1).view(np.uint8)
            if flat.size != size:
                raise ValueError(f"it holds {flat.size:,} bytes where a chunk has {size:,}")
        except _DAMAGE as error:
            raise self._fault(f"chunk {self.key(chunk)} cannot be decoded: {one_line(error)}") from error
        values: NDArray[Any] = flat.view(self.dtype).reshape(self.chunks, order=self.encoding.order)
        # of any rank, so that no Box can be it
        return values[tuple(slice(n - i * c) for n, i, c in zip(self.shape, chunk, self.chunks, strict=True))]

    def chunks_in(self, box: Box) -> list[ChunkIndex]:
        """Indices of the chunks under a box that are present, in C order."""
        return [chunk for chunk in box.to_chunks(self.chunks_zyx).indices() if chunk in self.present]

    def read(self, box: Box) -> NDArray[Any]:
        """The box, dtype kept, perhaps read only; bounds inside the shape. Raises SubmissionError."""
        return self.assemble(box, {chunk: self.read_chunk(chunk) for chunk in self.chunks_in(box)})

    def assemble(self, box: Box, decoded: Mapping[ChunkIndex, NDArray[Any]]) -> NDArray[Any]:
        """The box from the decoded chunks under it; where none is given it is ``fill_value``."""
        if len(decoded) == 1:
            ((chunk, values),) = decoded.items()
            extent = self.chunk_box(chunk)
            if box.intersect(extent) == box:
                return values[box.relative_to(extent).slices]
        fill = np.zeros((), self.dtype) if self.fill_value is None else self.fill_value
        out = np.full(box.shape, fill, self.dtype)
        for chunk, values in decoded.items():
            extent = self.chunk_box(chunk)
            both = box.intersect(extent)
            out[both.relative_to(box).slices] = values[both.relative_to(extent).slices]
        return out

    def _fault(self, what: str) -> SubmissionError:
        return SubmissionError(f"{self.members.place}: {self.place}: {what}")


def read_metadata(members: Archive, name: str) -> dict[str, Any]:
    """A metadata file's keys and values. Raises SubmissionError when it holds anything else."""
    try:
        data = json.loads(members.read(name, MAX_METADATA_BYTES))
    except (*_DAMAGE, RecursionError) as error:
        raise SubmissionError(f"{members.place}: {name}: not readable as JSON: {one_line(error)}") from error
    if not isinstance(data, dict):
        raise SubmissionError(f"{members.place}: {name}: holds no keys and values")
    return data


def open_array(members: Archive, place: str, files: Mapping[str, str]) -> StoredArray:
    """The array at ``place`` made of ``files`` (name beneath it -> member), of which ``.zarray`` is one.

    Raises SubmissionError when its metadata does not tell how to decode it.
    """
    metadata = read_metadata(members, files[".zarray"])
    attributes = read_metadata(members, files[".zattrs"]) if ".zattrs" in files else {}
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
        raise SubmissionError(f"{members.place}: {place}: {one_line(error)}") from error
    present, stray = _sorted_out(files, shape, chunks, encoding.separator)
    foreign = None if present else foreign_chunk(stray, lambda name: False)
    if foreign is not None:
        counts = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
        own = [encoding.separator.join(map(str, index)) for index in ([0] * len(counts), [n - 1 for n in counts])]
        raise SubmissionError(f"{members.place}: {place}: {misnamed(foreign, (own[0], own[1]), '.zarray')}")
    return StoredArray(place, shape, chunks, dtype, fill, attributes, encoding, members, present, stray)


def _sizes(metadata: Mapping[str, Any], key: str) -> tuple[int, ...]:
    sizes = metadata[key]
    if not isinstance(sizes, list) or not all(type(n) is int and n > 0 for n in sizes):
        raise ValueError(f"{key} must be a list of whole numbers above 0, not {sizes!r}")
    return tuple(sizes)


def _number_dtype(name: Any) -> np.dtype[Any]:
    if not isinstance(name, str) or not _NUMBERS.fullmatch(name):
        raise ValueError(f"dtype {name!r} is not one of numbers")
    return np.dtype(name)


def _encoding(metadata: Mapping[str, Any]) -> ChunkEncoding:
    order, separator = metadata["order"], metadata.get("dimension_separator", ".")
    if order not in ("C", "F") or separator not in (".", "/"):
        raise ValueError(f"order {order!r} with dimension_separator {separator!r} is not Zarr v2")
    compressor = metadata["compressor"]
    stages = [*(metadata["filters"] or ()), *([compressor] if compressor is not None else ())]
    if len(stages) > MAX_STAGES:
        raise ValueError(f"{len(stages)} filters and compressors, where at most {MAX_STAGES} make sense")
    return ChunkEncoding(tuple(_codec(stage) for stage in reversed(stages)), order, separator)


def _codec(stage: Any) -> numcodecs.abc.Codec:
    name = stage.get("id") if isinstance(stage, dict) else stage
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}{suggestion(str(name), CODECS)}")
    for key in ("dtype", "astype", "encode_dtype", "decode_dtype"):
        if stage.get(key) is not None:
            _number_dtype(stage[key])
    return numcodecs.get_codec(dict(stage))


def _sorted_out(
    files: Mapping[str, str], shape: Sequence[int], chunks: Sequence[int], separator: str
) -> tuple[dict[ChunkIndex, str], tuple[str, ...]]:
    """The chunks by index, and the files that are none of this array's."""
    counts = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    number = re.compile("0|[1-9][0-9]{0,17}")
    present: dict[ChunkIndex, str] = {}
    stray = []
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
