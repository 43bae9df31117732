"""What must be predicted: the crops, their grids, and the classes scored in each."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from ensemble.core.box import zyx
from ensemble.core.classes import all_classes
from ensemble.core.grid import Grid, NmZYX, nm_zyx
from ensemble.support import ManifestError, suggestion

COLUMNS = ("crop_name", "dataset", "class_label", "voxel_size", "translation", "shape")


@dataclass(frozen=True)
class Target:
    """One crop: where it lies and what is scored there, classes in the order of their ids."""

    crop: str
    dataset: str
    grid: Grid
    classes: tuple[str, ...]

    @property
    def group(self) -> str:
        """Name of the crop's group in a submission."""
        return f"crop{self.crop}"


@cache
def official_manifest() -> tuple[Target, ...]:
    """The challenge's own test crops: 16 crops, 413 arrays."""
    table = yaml.safe_load(files("ensemble.core").joinpath("official_manifest.yaml").read_text())
    return tuple(
        Target(
            crop=str(crop),
            dataset=row["dataset"],
            grid=Grid(zyx(row["shape"]), nm_zyx(row["voxel_size"]), nm_zyx(row["translation"])),
            classes=tuple(row["classes"]),
        )
        for crop, row in sorted(table["crops"].items())
    )


def load_manifest(path: str | Path | None) -> tuple[Target, ...]:
    """The targets of a manifest file, or the official ones for None.

    Raises ManifestError naming the line for a wrong column, number or class, a repeated row, or a crop
    whose classes do not share one grid.
    """
    if path is None:
        return official_manifest()
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise ManifestError(f"{path}: cannot read the manifest: {reason}") from error
    reader = csv.reader(text.splitlines())
    header = [column.strip() for column in next(reader, [])]
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        extra = [column for column in header if column not in COLUMNS]
        hint = suggestion(missing[0], extra) if extra else ""
        raise ManifestError(f"{path}:1: the manifest lacks the column {missing[0]!r}{hint}")
    crops: dict[str, Target] = {}
    for number, cells in enumerate(reader, start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise ManifestError(f"{path}:{number}: {len(cells)} cells where the header has {len(header)}")
        _add(crops, dict(zip(header, (cell.strip() for cell in cells), strict=True)), f"{path}:{number}")
    if not crops:
        raise ManifestError(f"{path}: the manifest lists no crop")
    order = {name: row.id for name, row in all_classes().items()}
    return tuple(
        Target(t.crop, t.dataset, t.grid, tuple(sorted(t.classes, key=order.__getitem__))) for t in crops.values()
    )


def _add(crops: dict[str, Target], row: dict[str, str], place: str) -> None:
    name = row["class_label"]
    if name not in all_classes():
        raise ManifestError(f"{place}: unknown class {name!r}{suggestion(name, all_classes())}")
    crop = row["crop_name"].removeprefix("crop")
    if not crop or not all(c.isalnum() or c in "-_." for c in crop) or crop.startswith("."):
        raise ManifestError(f"{place}: crop_name {row['crop_name']!r} is not a name of letters and digits")
    voxel_size, translation, shape = (
        _numbers(row[column], f"{place}: {column}") for column in ("voxel_size", "translation", "shape")
    )
    if any(n != int(n) for n in shape):
        raise ManifestError(f"{place}: shape must be whole numbers of voxels, not {row['shape']}")
    try:
        grid = Grid(zyx(map(int, shape)), voxel_size, translation)
    except ValueError as error:
        raise ManifestError(f"{place}: {error}") from error
    known = crops.get(crop)
    if known is None:
        crops[crop] = Target(crop, row["dataset"], grid, (name,))
        return
    if (known.grid, known.dataset) != (grid, row["dataset"]):
        raise ManifestError(
            f"{place}: crop {crop} has another grid or dataset on an earlier line; give all its classes one grid"
        )
    if name in known.classes:
        raise ManifestError(f"{place}: crop {crop} lists {name} twice")
    crops[crop] = Target(crop, known.dataset, grid, (*known.classes, name))


def _numbers(cell: str, place: str) -> NmZYX:
    try:
        z, y, x = (float(part) for part in cell.strip("[]").split(";"))
    except ValueError as error:
        raise ManifestError(f"{place}: expected three numbers like [8.0;8.0;8.0] (z;y;x), not {cell!r}") from error
    return z, y, x


def write_manifest(path: Path, targets: Iterable[Target]) -> None:
    """Write ``targets`` as a manifest with the official columns."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for target in targets:
            grid = target.grid
            cells = [_cell(grid.voxel_size_nm), _cell(grid.origin_nm), _cell(grid.shape)]
            rows.writerows([target.crop, target.dataset, name, *cells] for name in target.classes)


def _cell(values: Sequence[float]) -> str:
    return "[" + ";".join(str(value) for value in values) + "]"


def select_targets(
    targets: Sequence[Target], crops: Sequence[str] | None, names: Sequence[str] | None
) -> tuple[Target, ...]:
    """The targets left when only some crops or classes are asked for.

    Raises ManifestError for a crop or class that the manifest does not have.
    """
    wanted = {crop.removeprefix("crop") for crop in crops} if crops else {t.crop for t in targets}
    for crop in wanted - {t.crop for t in targets}:
        raise ManifestError(f"--crops: the manifest has no crop {crop!r}{suggestion(crop, [t.crop for t in targets])}")
    scored = {name for t in targets for name in t.classes}
    for name in set(names or ()) - scored:
        raise ManifestError(f"--classes: the manifest scores no class {name!r}{suggestion(name, scored)}")
    kept = (
        Target(t.crop, t.dataset, t.grid, tuple(n for n in t.classes if not names or n in names))
        for t in targets
        if t.crop in wanted
    )
    return tuple(t for t in kept if t.classes)
