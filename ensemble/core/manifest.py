"""What must be predicted: the crops, their grids, and the classes scored in each."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from ensemble.core.box import zyx
from ensemble.core.classes import all_classes
from ensemble.core.grid import Grid, nm_zyx
from ensemble.core.manifest_cells import crop_name, dataset_name, grid
from ensemble.support import ManifestError, suggestion

COLUMNS = ("crop_name", "dataset", "class_label", "voxel_size", "translation", "shape")
SEPARATORS = ",;\t"
MAX_CELL = 300


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

    @property
    def places(self) -> frozenset[str]:
        """Its arrays in a submission: "crop557/mito"."""
        return frozenset(f"{self.group}/{name}" for name in self.classes)


@cache
def _official_table() -> dict[str, Any]:
    table: dict[str, Any] = yaml.safe_load(files("ensemble.core").joinpath("official_manifest.yaml").read_text())
    return table


@dataclass(frozen=True)
class Departure:
    """Arrays that older manifests asked for ("crop981/mt_in"), and the day since which they are not asked for."""

    day: str
    places: frozenset[str]


@cache
def official_departure() -> Departure:
    """What has left the challenge's own manifest."""
    left = _official_table()["left"]
    places = (f"crop{crop}/{name}" for crop, names in left["crops"].items() for name in names)
    return Departure(left["day"], frozenset(places))


@cache
def official_manifest() -> tuple[Target, ...]:
    """The challenge's own test crops: 16 crops, 413 arrays."""
    table = _official_table()
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

    Raises ManifestError naming the line for a wrong column, name, number or class, a repeated row, or a crop
    whose classes do not share one grid.
    """
    if path is None:
        return official_manifest()
    path = Path(path)
    crops: dict[str, Target] = {}
    for line, row in _rows(path):
        try:
            _add(crops, row)
        except ValueError as error:
            raise ManifestError(f"{path}:{line}: {error}") from error
    if not crops:
        raise ManifestError(f"{path}: the manifest lists no crop")
    order = {name: row.id for name, row in all_classes().items()}
    return tuple(replace(t, classes=tuple(sorted(t.classes, key=order.__getitem__))) for t in crops.values())


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Cells by column, and the line each row ends on; between cells commas, semicolons or tabs, as in the header."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file in UTF-8"
        raise ManifestError(f"{path}: cannot read the manifest: {reason}") from error
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
        _check_header(header, path)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, _row(header, cells, f"{path}:{reader.line_num}", separator)
    except csv.Error as error:
        raise ManifestError(f"{path}:{reader.line_num}: this is not a table of cells: {error}") from error


def _check_header(header: Sequence[str], path: Path) -> None:
    for column in COLUMNS:
        if column not in header:
            extra = [known for known in header if known not in COLUMNS]
            hint = suggestion(column, extra) if extra else ""
            raise ManifestError(f"{path}:1: the manifest lacks the column {column!r}{hint}")
        if header.count(column) > 1:
            raise ManifestError(f"{path}:1: the manifest has the column {column!r} twice")


def _row(header: Sequence[str], cells: Sequence[str], place: str, separator: str) -> dict[str, str]:
    if len(cells) != len(header):
        quotes = "; where cells are parted by ';', write \"[8;8;8]\" in quotes" if separator == ";" else ""
        raise ManifestError(f"{place}: {len(cells)} cells where the header has {len(header)}{quotes}")
    longest = max(cells, key=len)
    if len(longest) > MAX_CELL:
        raise ManifestError(f"{place}: no cell has {len(longest):,} characters, like {longest[:40]!r}...")
    return dict(zip(header, (cell.strip() for cell in cells), strict=True))


def _add(crops: dict[str, Target], row: dict[str, str]) -> None:
    """Add a row's class to its crop, kept by its name in lower case. Raises ValueError."""
    name = row["class_label"]
    if name not in all_classes():
        raise ValueError(f"unknown class {name!r}{suggestion(name, all_classes())}")
    crop, dataset = crop_name(row["crop_name"]), dataset_name(row["dataset"])
    placed = grid(row["voxel_size"], row["translation"], row["shape"])
    known = crops.get(crop.lower(), Target(crop, dataset, placed, ()))
    if known.crop != crop:
        raise ValueError(f"crops {known.crop} and {crop} are one folder on many machines; rename one")
    if (known.grid, known.dataset) != (placed, dataset):
        raise ValueError(f"crop {crop} has another grid or dataset on an earlier line; give all its classes one grid")
    if name in known.classes:
        raise ValueError(f"crop {crop} lists {name} twice")
    crops[crop.lower()] = replace(known, classes=(*known.classes, name))


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

    Raises ManifestError for a crop or class that the manifest does not have, and for an empty selection.
    """
    for option, asked in (("--crops", crops), ("--classes", names)):
        if asked is not None and not asked:
            raise ManifestError(f"{option} names nothing; name some, or leave it out for all")
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
