"""Targets: the official table, and manifests people write."""

import csv
from pathlib import Path

import pytest

from ensemble.core import manifest
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.support.errors import ManifestError

GOOD = """\
crop_name,dataset,class_label,voxel_size,translation,shape
7,d,mito,[1.74;2.0;2.0],[23837.13;7599.0;35999.0],[60;70;80]
7,d,ecs,[1.74;2.0;2.0],[23837.13;7599.0;35999.0],[60;70;80]
"""


def test_the_official_table_has_413_arrays_and_88_gvoxel() -> None:
    targets = manifest.official_manifest()
    assert len(targets) == 16
    assert sum(len(t.classes) for t in targets) == 413
    assert len({name for t in targets for name in t.classes}) == 48
    assert sum(t.grid.size * len(t.classes) for t in targets) / 1e9 == pytest.approx(87.7, abs=0.1)


def test_a_file_reads_verbatim_with_classes_in_the_order_of_their_ids(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(GOOD)
    grid = Grid((60, 70, 80), (1.74, 2.0, 2.0), (23837.13, 7599.0, 35999.0))
    assert manifest.load_manifest(path) == (Target("7", "d", grid, ("ecs", "mito")),)


def test_written_and_read_back_is_the_same(tmp_path: Path) -> None:
    manifest.write_manifest(tmp_path / "m.csv", manifest.official_manifest())
    assert sorted(manifest.load_manifest(tmp_path / "m.csv"), key=str) == sorted(manifest.official_manifest(), key=str)


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("class_label", "class", 1, "did you mean 'class'?"),
        ("shape", "size", 1, "lacks the column 'shape'"),
        (",mito,", ",mitto,", 2, "did you mean 'mito'?"),
        ("[60;70;80]", "[60;70]", 2, "three numbers"),
        ("[60;70;80]", "[60;70;8.5]", 2, "whole numbers"),
        ("[1.74;2.0;2.0]", "[0;2.0;2.0]", 2, "positive"),
        ("[1.74;2.0;2.0]", "[2.0;2.0;2.0]", 3, "one grid"),
        (",ecs,", ",mito,", 3, "twice"),
        ("7,d,mito", "../7,d,mito", 2, "not a name"),
        ("7,d,mito", "7.0,d,mito", 2, "write the plain number"),
        ("7,d,ecs", "Crop7,d,ecs", 3, "would be the folder cropCrop7"),
        ("7,d,mito", "7,../d,mito", 2, "not the name of a folder"),
        ("[60;70;80]", "[60;70;80", 2, "three numbers"),
        ("shape", "shape,shape", 1, "twice"),
        (",mito,", f",{'m' * 1000},", 2, "no cell has 1,000 characters"),
        ("7,d,ecs,", '"7,d,ecs,', 3, "not a table"),
        ("7,d,mito", "a,d,ld,[1;1;1],[0;0;0],[9;9;9]\nA,d,mito", 3, "one folder on many machines"),
        ("7,d,ecs,", "7,d,ecs,x,", 3, "7 cells"),
    ],
)
def test_a_wrong_manifest_is_told_by_line(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ManifestError) as caught:
        manifest.load_manifest(path)
    assert f"m.csv:{line}: " in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_choosing_none_is_not_choosing_all() -> None:
    for crops, names, option in (([], None, "--crops"), (None, [], "--classes"), ((), (), "--crops")):
        with pytest.raises(ManifestError, match=f"{option} names nothing"):
            manifest.select_targets(manifest.official_manifest(), crops, names)


def test_choosing_crops_and_classes_that_are_not_there_is_told() -> None:
    with pytest.raises(ManifestError, match="no crop '55'"):
        manifest.select_targets(manifest.official_manifest(), ["55"], None)
    with pytest.raises(ManifestError, match="did you mean 'mito'"):
        manifest.select_targets(manifest.official_manifest(), None, ["mitos"])
    chosen = manifest.select_targets(manifest.official_manifest(), ["crop988", "557", "984"], ["ld", "nuc"])
    assert {t.crop: t.classes for t in chosen} == {"557": ("nuc", "ld"), "988": ("nuc", "ld"), "984": ("nuc",)}


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_table_that_was_saved_with_other_separators_is_the_same(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(GOOD)
    rows = list(csv.reader(GOOD.splitlines()))
    other = tmp_path / "other.csv"
    with other.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    assert manifest.load_manifest(other) == manifest.load_manifest(path)
    if separator == ";":  # as nobody's program writes it, but some people's hands do
        other.write_text(GOOD.replace(",", ";"))
        with pytest.raises(ManifestError, match=r"other.csv:2: 12 cells where the header has 6; .* in quotes"):
            manifest.load_manifest(other)


@pytest.mark.parametrize("numbers", ["[1e18;1e18;1e18]", "[2000000;2000000;2000000]", "[1e400;1;1]", "[nan;1;1]"])
def test_a_crop_that_nothing_can_hold_is_refused_before_anything_is_counted(tmp_path: Path, numbers: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(GOOD.replace("[60;70;80]", numbers))
    with pytest.raises(ManifestError, match=r"m.csv:2: shape"):
        manifest.load_manifest(path)
