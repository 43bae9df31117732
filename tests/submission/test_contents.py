"""What ``ensemble check`` says of a submission's voxels: contradictions and objects."""

from itertools import product
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import yaml
from scipy import ndimage

from ensemble.core.grid import Grid
from ensemble.core.manifest import Target, official_manifest
from ensemble.submission import contents as census
from ensemble.submission.check_report import BrokenRelation
from ensemble.submission.checking import check
from ensemble.submission.writer import create_array, write_group_files
from tests.support.faulty import the_only_fault_is, write_text
from tests.support.processes import ROOT
from tests.support.small_submission import SHAPE, Masks, checked, cut_chunk, edit, good, rewrite, write, zipped


def leaves() -> dict[str, set[str]]:
    """The atoms of every class, straight from the class table."""
    (table,) = (ROOT / "ensemble").rglob("classes.yaml")
    rows = yaml.safe_load(table.read_text())
    return {name: set(row.get("parts", [name])) for name, row in rows.items()}


def impossible(masks: Masks, claimed: set[str]) -> dict[tuple, frozenset]:
    """Voxel -> its set of claimed classes, where no atom (nor nothing) has that set; one voxel at a time."""
    leaf = leaves()
    atoms = {name for name, parts in leaf.items() if parts == {name}}
    words = {frozenset(c for c in claimed if atom in leaf[c]) for atom in atoms} | {frozenset()}
    found = {}
    for voxel in product(*map(range, next(iter(masks.values())).shape)):
        held = frozenset(c for c in claimed if masks[c][voxel])
        if held not in words:
            found[voxel] = held
    return found


def test_voxels_of_impossible_sets_are_counted_and_shown(tmp_path):
    masks = good()
    masks["mito_mem"][5, 6, 7] = 1
    masks["nuc"][69, 14, 0:5] = 0
    masks["ecs"][12, 5, 5] = 1
    root = write(tmp_path / "s", masks)
    report = checked(root)
    # a mitochondrial membrane in extracellular space, and extracellular space in a mitochondrion's lumen
    assert report.violations == {"crop557": 2, "crop984": 0}
    assert report.violations_before == {}  # nobody says
    assert report.relations == {
        "ecs and mito at once": BrokenRelation(0, 1),
        "mito_mem outside mito": BrokenRelation(0, 1),
    }
    assert report.faults == (
        "crop557: 2 voxels have classes that contradict each other: "
        "voxel (5, 6, 7) has ecs, mito_mem; voxel (12, 5, 5) has ecs, mito_lum, mito",
    )


@pytest.mark.parametrize("consistency", ["none", "report"])
def test_contradictions_are_warnings_where_consistency_was_not_asked_for(tmp_path, consistency):
    masks = good()
    masks["ecs"][12, 5, 5] = 1
    report = checked(write(tmp_path / "s", masks, {"consistency": consistency}))
    assert report.ok and report.violations["crop557"] == 1
    assert report.warnings[0].startswith("crop557: 1 voxels have classes that contradict each other")


def test_unclaimed_classes_are_no_evidence(tmp_path):
    masks = good()
    masks["mito"][:] = 0
    root = write(tmp_path / "s", masks)
    assert checked(root).violations["crop557"] == 1800
    edit(root / ".zattrs", unclaimed={"crop557": ["mito"]})
    assert checked(root).violations["crop557"] == 0


def test_a_damaged_chunk_raises_no_contradictions_of_its_own(tmp_path):
    masks = good()
    masks["ecs"][12, 5, 5] = 1
    root = write(tmp_path / "s", masks)
    cut_chunk(root)
    assert checked(root).violations["crop557"] == 1


@pytest.mark.parametrize("crop", [target.crop for target in official_manifest()])
def test_contradictions_are_those_a_brute_force_finds(tmp_path, crop):
    """Every official crop's subset of classes, some unclaimed, sets half right and half random."""
    scored = next(target.classes for target in official_manifest() if target.crop == crop)
    target = Target(crop, "x", Grid((3, 5, 7), (8, 8, 8), (0, 0, 0)), scored)
    rng = np.random.default_rng(int(crop))
    claimed = {name for name in scored if rng.random() < 0.8}
    leaf = leaves()
    atoms = sorted(name for name, parts in leaf.items() if parts == {name})
    atom = rng.choice(atoms, target.grid.shape)
    flipped = rng.random(target.grid.shape) < 0.5
    masks, root = {}, tmp_path / "s"
    write_group_files(root, [target], {"unclaimed": {f"crop{crop}": sorted(set(scored) - claimed)}})
    for name in scored:
        mask = np.isin(atom, sorted(leaf[name])) ^ (flipped & (rng.random(target.grid.shape) < 0.1))
        masks[name] = mask & (name in claimed)
        create_array(root, target, name, np.uint8)[target.grid.box] = masks[name]
    expected = impossible(masks, claimed)
    report = check(zipped(root), [target])
    assert report.violations == {f"crop{crop}": len(expected)}
    assert len(report.faults) == (1 if expected else 0)
    for fault in report.faults:
        for told in fault.split(": ", 2)[2].split("; "):
            place, held = told.removeprefix("voxel ").split(" has ")
            voxel = tuple(int(i) for i in place.strip("()").split(","))
            assert expected[voxel] == frozenset(held.split(", "))


@pytest.mark.parametrize("moderate", [2**26, 5000])
def test_chunks_of_any_shape_give_the_same_report(tmp_path, monkeypatch, moderate):
    masks = good()
    masks["ecs"][12, 5, 5] = masks["ecs"][69, 0, 0] = 1
    masks["mito_mem"][68, 19, 29] = 1
    root = write(tmp_path / "s", masks)
    before = checked(root)
    assert before.violations["crop557"] == 2
    monkeypatch.setattr(census, "MAX_BLOCK_VOXELS", moderate)
    foreign = {"mito": SHAPE, "ecs": (1, 20, 30), "mito_mem": (33, 7, 64), "nuc": (70, 3, 3)}
    for name, chunks in foreign.items():
        rewrite(root, name, masks[name], chunks=chunks)
    after = checked(root)
    assert (after.arrays, after.empty) == (before.arrays, before.empty)
    assert (
        after.relations == before.relations and after.violations == before.violations and after.faults == before.faults
    )


def test_a_damaged_chunk_under_several_blocks_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(census, "MAX_BLOCK_VOXELS", 5000)
    root = write(tmp_path / "s")
    rewrite(root, "ecs", good()["ecs"], chunks=(33, 20, 30))
    (root / "crop557/ecs/0.0.0").write_bytes(b"?")
    assert len(checked(root).faults) == 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_objects_of_a_binary_array_are_its_26_connected_components(tmp_path, seed):
    mask = (np.random.default_rng(seed).random(SHAPE) < 0.04).astype(np.uint8)
    mask[:40, :, :7] = 0
    root = write(tmp_path / "s", good() | {"nuc": mask}, {"consistency": "none"})
    rewrite(root, "nuc", mask, chunks=(16, 8, 8))
    _, expected = ndimage.label(mask, np.ones((3, 3, 3)))
    assert checked(root).arrays["crop557"]["nuc"].objects == expected


def test_ids_are_counted_not_their_highest(tmp_path):
    ids = np.zeros(SHAPE, np.uint32)
    ids[::3, ::3, ::3] = 70_000 + np.arange(24 * 7 * 10).reshape(24, 7, 10) // 4
    root = write(tmp_path / "s", good() | {"mito": ids}, {"consistency": "none"})
    row = checked(root).arrays["crop557"]["mito"]
    assert (row.dtype, row.highest_id, row.objects) == ("<u4", 70_419, 420)


def test_sizes_of_ids_and_which_reach_the_border():
    labels = np.zeros((20, 20, 20), np.uint16)
    labels[0:3, 5:8, 5:8] = 4  # 27 voxels at the border
    labels[10:12, 10:12, 10:12] = 9  # 8 inside
    faces = [np.unique(face) for face in census._faces(labels, (0, 0, 0), labels.shape)]
    total = census.ArrayTotals(ids=[census._distinct(labels)], border_ids=faces)
    assert total.sizes_voxels.tolist() == [27, 8]
    assert (total.distinct_ids, total.at_border) == (2, 1)


def value_two(root: Path) -> None:
    mask = good()["ecs"]
    mask[65, 19, 4] = 2
    rewrite(root, "ecs", mask)


def short_chunk(root: Path) -> None:
    (root / "crop557/mito/1.0.0").write_bytes(numcodecs.Zstd().encode(bytes(99)))


FAULTS = {
    "semantic values": (value_two, "crop557/ecs: chunk 1.0.0 holds 2 at voxel (65, 19, 4)"),
    "chunk cut": (cut_chunk, "crop557/mito: chunk 1.0.0 cannot be decoded"),
    "chunk short": (short_chunk, "crop557/mito: chunk 1.0.0 cannot be decoded: it holds 99 bytes"),
    "chunk garbage": (write_text("crop557/mito/0.0.0", "?" * 50), "crop557/mito: chunk 0.0.0 cannot"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_found_named_and_told_in_one_line(tmp_path, case):
    make, expected = FAULTS[case]
    root = write(tmp_path / "s")
    make(root)
    the_only_fault_is(root, expected)


def test_values_between_0_and_1_are_a_fault_beside_the_dtype(tmp_path):
    root = write(tmp_path / "s")
    rewrite(root, "ecs", good()["ecs"].astype("<f4") * np.float32(0.25))
    report = checked(root)
    assert [fault.split(";")[0] for fault in report.faults] == [
        "crop557/ecs: has dtype <f4",
        "crop557/ecs: chunk 0.0.0 holds 0.25 at voxel (0, 0, 0)",
        "crop557/ecs: chunk 1.0.0 holds 0.25 at voxel (64, 0, 0)",
    ]


def test_many_damaged_chunks_are_counted_after_the_first_twenty(tmp_path):
    root = write(tmp_path / "s")
    rewrite(root, "ecs", good()["ecs"], chunks=(2, 20, 30))
    for chunk in (root / "crop557/ecs").glob("*.0.0"):
        chunk.write_bytes(b"?")
    faults = checked(root).faults
    assert len(faults) == 21
    assert faults[-1] == "crop557/ecs: 15 more chunks cannot be decoded"
