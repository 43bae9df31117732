"""EM from a bucket, from what was fetched of it, and from what the challenge's own tool fetched: the same build."""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import zarr

from ensemble.cli import main
from ensemble.cli.data_commands import add_data_commands
from ensemble.core import Target, load_manifest
from ensemble.storage import em_place, open_em
from tests.support.bucket import answer
from tests.support.built import OUT, begun_anew
from tests.support.small_build import BUILD, wrong

OUT_ZIP = OUT / "submission.zip"
IN_BUCKET = ["--data", "s3://em", "--device", "cpu"]
FETCH = ["fetch", *BUILD[1:], "--data", "s3://em", "--to", "fetched"]


@pytest.fixture
def from_bucket(built, bucket):
    """What the small build made of files, before they were moved into a bucket and all it left was taken away."""
    first = begun_anew()
    shutil.rmtree(bucket.folder / "em")
    shutil.move(built / "data", bucket.folder / "em")
    return first


@pytest.mark.slow
def test_a_build_from_a_bucket_is_that_from_files_and_a_second_reads_nothing_again(from_bucket, bucket, capsys):
    assert main([*BUILD, *IN_BUCKET]) == 0
    assert OUT_ZIP.read_bytes() == from_bucket
    assert bucket.chunks(of="fibsem-uint8") > 0
    bucket.forget()
    begun_anew()
    assert main([*BUILD, *IN_BUCKET]) == 0
    assert OUT_ZIP.read_bytes() == from_bucket
    assert bucket.chunks(of="fibsem-uint8") == 0
    array = zarr.open_array(str(Path(em_place(bucket.folder / "em", "d")) / "s0"), mode="r+")
    array[...] = 255 - array[...]
    capsys.readouterr()
    assert main(["plan", *BUILD[1:], *IN_BUCKET]) == 0
    assert "0 of 4 predictions found" in capsys.readouterr().out  # those of other EM are no good


def test_what_breaks_off_a_build_is_a_line_and_it_goes_on(from_bucket, bucket, capsys):
    left = [3]

    def after_three(request: str) -> bytes | None:
        left[0] -= "fibsem-uint8/s0/1" in request
        return answer("503 Slow Down") if "fibsem-uint8/s0/1" in request and left[0] < 0 else None

    bucket.disturb = after_three
    line = wrong(capsys, *BUILD, *IN_BUCKET)
    assert "in trouble (503 Service Unavailable), again and again; run the same command again to go on" in line
    bucket.disturb = lambda request: None
    assert main([*BUILD, *IN_BUCKET]) == 0
    assert OUT_ZIP.read_bytes() == from_bucket


@pytest.mark.parametrize(
    ("data", "instead", "message"),
    [
        ("s3://em", answer("403 Forbidden", "AccessDenied"), "s3:GetObject and s3:ListBucket are needed"),
        ("s3://em", answer("400 Bad Request", "ExpiredToken"), "the credentials have expired"),
        ("s3://none", None, "there is no such bucket; correct the URL"),
        ("s3://em/elsewhere", None, "there is no Zarr array or group here"),
    ],
)
def test_what_is_wrong_with_a_bucket_is_one_line(place, bucket, capsys, data, instead, message):
    shutil.copytree(place / "data", bucket.folder / "em", dirs_exist_ok=True)
    bucket.disturb = lambda request: instead
    assert message in wrong(capsys, "plan", *BUILD[1:], "--data", data)
    assert message in wrong(capsys, *FETCH[:-4], "--data", data, "--to", "to")


def test_what_was_fetched_makes_the_same_build_without_a_network(from_bucket, bucket, capsys, monkeypatch):
    assert main([*FETCH, "--crops", "2"]) == 0
    assert "to fetch: " in capsys.readouterr().err
    assert main(FETCH) == 0
    assert main(FETCH) == 0
    assert capsys.readouterr().out.startswith("0 files fetched, ")
    shutil.copytree(bucket.folder / "em/theirs", "fetched/theirs")  # predictions of another tool are not EM
    bucket.disturb = lambda request: answer("503 Slow Down")
    assert main([*BUILD, "--data", "fetched"]) == 0
    assert OUT_ZIP.read_bytes() == from_bucket


def test_the_help_says_where_it_goes():
    commands = argparse.ArgumentParser().add_subparsers()
    add_data_commands(commands)
    assert "--to DIR" in commands.choices["fetch"].format_help()


def test_what_lies_here_needs_no_fetching(place, capsys):
    said = wrong(capsys, "fetch", *BUILD[1:], "--data", "data", "--to", "to")
    assert said == "ensemble: --data data: lies on this machine; name a URL to fetch from"
    assert wrong(capsys, "fetch", *BUILD[1:], "--to", "to").startswith("ensemble: --data data:")


def test_a_tree_as_the_challenges_own_tool_fetches_it(built):
    first = begun_anew()
    as_fetched_by_csc(built / "data", built / "csc", load_manifest(built / "manifest.csv"))
    shutil.copytree(built / "data/theirs", built / "csc/theirs")
    assert main([*BUILD, "--data", "csc"]) == 0
    assert OUT_ZIP.read_bytes() == first


def as_fetched_by_csc(root: Path, to: Path, targets: Sequence[Target]) -> None:
    """EM as ``csc fetch-data`` leaves it: groups down to arrays of full shape, of whose chunks only the crops' came."""
    (finest,) = open_em(root, "d").levels
    values, place = finest.read(finest.grid.box), Path(em_place(to, "d"))
    for group in (place, *place.parents[:3]):
        group.mkdir(parents=True, exist_ok=True)
        (group / ".zgroup").write_text('{\n    "zarr_format": 2\n}')
    attributes = json.loads((Path(em_place(root, "d")) / ".zattrs").read_text())
    (place / ".zattrs").write_text(json.dumps(attributes))
    array = zarr.create_array(
        str(place / "s0"),
        shape=values.shape,
        chunks=finest.chunks,
        dtype=values.dtype,
        zarr_format=2,
        fill_value=0,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    for target in targets:
        box = finest.grid.box_over(target.grid)
        chunks = box.to_chunks(finest.chunks).of_chunks(finest.chunks).intersect(finest.grid.box)
        array[chunks.slices] = values[chunks.slices]
