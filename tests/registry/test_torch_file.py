"""Files of torch.save, read as torch reads them."""

import io
import zipfile

import pytest
import torch
from torch import nn

from registry.torch_file import NOT_WHOLE, read_older, read_zip

CONTENT = {
    **{str(dtype): torch.arange(6).to(dtype).view(2, 3) for dtype in (torch.float64, torch.float32, torch.float16)},
    **{str(dtype): torch.arange(6).to(dtype).view(2, 3) for dtype in (torch.bfloat16, torch.int64, torch.uint8)},
    **{
        str(dtype): torch.arange(6).to(dtype).view(2, 3) for dtype in (torch.int32, torch.int16, torch.int8, torch.bool)
    },
    "view": torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1)[1:],
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(3),
    "parameter": nn.Parameter(torch.ones(2)),
    "epoch": 3,
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("read", [read_zip, read_older])
def test_tensors_are_what_torch_loads(tmp_path, read, protocol):
    torch.save(CONTENT, tmp_path / "c", _use_new_zipfile_serialization=read is read_zip, pickle_protocol=protocol)
    names: dict[str, None] = {}
    found = read(tmp_path / "c", names)
    expected = torch.load(tmp_path / "c", weights_only=False)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value.data) and found[key].dtype == value.dtype if key != "epoch" else value == 3
    assert "torch._utils._rebuild_tensor_v2" in names


def test_tensors_that_share_numbers_still_do(tmp_path):
    one = torch.arange(6.0)
    torch.save({"a": one, "b": one[2:]}, tmp_path / "c")
    found = read_zip(tmp_path / "c", {})
    assert found["a"].untyped_storage().data_ptr() == found["b"].untyped_storage().data_ptr()


def test_numbers_at_any_place_of_the_file_are_read(tmp_path):
    """A zip that was packed anew is not aligned as torch's own."""
    torch.save(CONTENT, tmp_path / "c")
    with zipfile.ZipFile(tmp_path / "c") as whole, zipfile.ZipFile(tmp_path / "packed", "w") as packed:
        for name in whole.namelist():
            packed.writestr(name.replace("c/", "another/"), whole.read(name))
    found = read_zip(tmp_path / "packed", {})
    assert torch.equal(found["view"], CONTENT["view"])


def test_what_is_kept_in_other_ways_is_put_aside(tmp_path):
    torch.save(
        {"sparse": torch.eye(3).to_sparse(), "meta": torch.empty(3, device="meta"), "w": torch.ones(1)}, tmp_path / "c"
    )
    found = read_zip(tmp_path / "c", {})
    assert (found["sparse"].kind, found["meta"].kind) == (
        "torch._utils._rebuild_sparse_tensor",
        "torch._utils._rebuild_meta_tensor_no_storage",
    )


def test_a_big_endian_file_is_told(tmp_path):
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(1)}, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(tmp_path / "c", "w") as big:
        for name in whole.namelist():
            big.writestr(name, b"big" if name.endswith("byteorder") else whole.read(name))
    with pytest.raises(ValueError, match="big-endian"):
        read_zip(tmp_path / "c", {})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02K\x01.", b"\x80\x02}.", b"no pickle at all"])
def test_what_is_none_is_not_whole(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    for read in (read_zip, read_older):
        with pytest.raises(NOT_WHOLE):
            read(tmp_path / "c", {})


def _packed_anew(path, content, change=lambda archive: None):
    """The zip that torch.save writes, packed by another tool: no numbers lie where they can be mapped."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(path, "w") as packed:
        for name in whole.namelist():
            info = zipfile.ZipInfo(name)
            if "/data/" in name:
                odd = 8 + (1 - packed.fp.tell() - 30 - len(name) - 12) % 4
                info.extra = b"\xff\xff" + odd.to_bytes(2, "little") + bytes(odd)
            packed.writestr(info, whole.read(name))
        change(packed)
    return path


def _all_are(member):
    """All numbers of the archive are those of one member."""

    def change(archive):
        first = next(info for info in archive.filelist if info.filename.endswith(member))
        for info in archive.filelist:
            if "/data/" in info.filename:
                info.header_offset, info.file_size = first.header_offset, first.file_size

    return change


def test_numbers_that_cannot_be_mapped_are_copied_once_for_all_that_share_them(tmp_path):
    whole = torch.arange(1000.0)
    content = {str(start): whole[start:] for start in range(100)}
    found = read_zip(_packed_anew(tmp_path / "c", content), {})
    assert len({value.untyped_storage().data_ptr() for value in found.values()}) == 1
    assert all(torch.equal(found[key], value) for key, value in content.items())
    found["0"][999] = -1.0
    assert found["99"][-1] == -1.0


def test_each_number_of_a_file_is_copied_but_once(tmp_path):
    """A small file whose tensors are all the same bytes would else take any amount of memory."""
    content = {str(number): torch.full((1000,), float(number)) for number in range(20)}
    found = read_zip(_packed_anew(tmp_path / "honest", content), {})
    assert all(torch.equal(found[key], value) for key, value in content.items())
    small = _packed_anew(tmp_path / "c", {**content, "large": torch.zeros(25_000)}, _all_are("/data/20"))
    with pytest.raises(ValueError, match="the same numbers again and again"):
        read_zip(small, {})
    torch.save(content, tmp_path / "mapped")
    assert read_zip(tmp_path / "mapped", {})["3"][0] == 3.0, "what is mapped takes no memory and is not counted"


@pytest.mark.parametrize("size", [1 << 20, 1 << 40, (1 << 62) - 1])
def test_more_numbers_than_the_file_is_long_are_none(tmp_path, size):
    def longer(archive):
        for info in archive.filelist:
            if "/data/" in info.filename:
                info.file_size = info.compress_size = size

    with pytest.raises(ValueError, match="more numbers than the file is long"):
        read_zip(_packed_anew(tmp_path / "c", {"w": torch.ones(5)}, longer), {})
