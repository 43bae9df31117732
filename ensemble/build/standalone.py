"""The guide's stand-alone step: a tree of predictions in, a tree of processed arrays out, metadata kept.

Trees are ``{dataset}.zarr/{crop}/{class}`` or ``{dataset}/{crop}/{class}/s0``, probabilities or masks.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

from ensemble.core import Box, Target, all_classes, is_instance, too_large
from ensemble.decode import CropAssembly, Probability, Told, assemble_group
from ensemble.engine import Here, done
from ensemble.methods import METHODS, Stage, Step
from ensemble.plan import Budget, CropPlan, NamedSource, Recipe, Route, describe_route, load_recipe
from ensemble.predict import Fractions, StoredProbabilities, is_far_below
from ensemble.storage import NAMES_OF_AXES, ChunkedArray, Encoding, Volume, open_volume, scratch_array
from ensemble.support import PARTIAL, Journal, Progress, VolumeError, code_digest, digest, library_versions, replacing

_CODEC = numcodecs.Zstd(level=1)
_ENCODING = Encoding(_CODEC, _CODEC.get_config())
_MADE = ".postprocessed"
"""The file that tells by what each array was made."""
_SHIPPED = {"binary": "baseline.yaml", "components": "components.yaml", "watershed": "watershed.yaml"}


@dataclass(frozen=True)
class Entry:
    """One predicted array: its place beneath the tree's root and what it is of."""

    relative: Path
    dataset: str
    crop: str
    name: str
    volume: Volume


def postprocess(
    predictions: Path, out: Path, method: str, *, recipe: str | None, budget: Budget, progress: Progress
) -> int:
    """Process every array under ``predictions`` into ``out``; returns how many there were.

    ``method`` labels the instance classes; thresholds and the other steps are the recipe's, by default those
    of the recipe shipped for the method. An array that is complete in ``out`` is not done again, one that was made
    otherwise is made anew. Raises VolumeError for a tree without predictions, an array that cannot be placed or is
    too large, and one in ``out`` that nobody made here.
    """
    rules = load_recipe(recipe or _SHIPPED[method])
    entries = list(_entries(predictions))
    if not entries:
        raise VolumeError(f"{predictions}: no array at {{dataset}}.zarr/{{crop}}/{{class}} or …/{{class}}/s0")
    tasks = [_task(entry, rules, method, budget) for entry in entries]
    made = dict(Journal.read(out / _MADE).get("array", []))
    for task in tasks:
        if task.place(out).exists() and task.name not in made:
            raise VolumeError(f"{task.place(out)}: was not made here; move it away, or give another folder than {out}")
    progress.stage(method, len(tasks))
    for index, task in enumerate(tasks):
        progress.at(index, f"{task.entry.dataset} crop {task.entry.crop} {task.entry.name}")
        if task.place(out).exists() and made[task.name] == task.key:
            continue
        if made.get(task.name):
            progress.say(f"{task.place(out)}: was made of other predictions or by other rules; it is made anew")
        _note_made(out, task.name, "")
        _process(task, out, budget, progress.say)
        _note_made(out, task.name, task.key)
    progress.at(len(tasks))
    return len(tasks)


def _note_made(out: Path, name: str, key: str) -> None:
    """Note an array as made by what ``key`` says; as begun, without one."""
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal.open(out / _MADE)
    journal.note("array", [name, key])
    journal.close()


@dataclass(frozen=True)
class _Task:
    """An array to be made, and ``key``, which changes with all that decides it."""

    entry: Entry
    plan: CropPlan
    key: str

    @property
    def name(self) -> str:
        return self.entry.relative.as_posix()

    def place(self, out: Path) -> Path:
        return out / self.entry.relative


def _task(entry: Entry, rules: Recipe, method: str, budget: Budget) -> _Task:
    volume = entry.volume
    if reason := too_large(volume.grid.shape):
        raise VolumeError(f"{volume.place}: its shape {list(volume.grid.shape)} {reason}")
    target = Target(entry.crop, entry.dataset, volume.grid, (entry.name,))
    route = _alone(rules.route(entry.name, target), entry.name, method)
    plan = CropPlan(target, {entry.name: route}, (entry.name,), ())
    budget.check_assembling(plan)
    made_by = code_digest("ensemble.build"), library_versions()
    within = budget.split_bytes if budget.may_coarsen(plan) else None
    return _Task(entry, plan, digest([describe_route(route), volume.identity(volume.grid.box), within, made_by]))


def _alone(route: Route, name: str, method: str) -> Route:
    """The route with the array itself as its source, labelled by ``method`` where the class has instances."""
    others = tuple(step for step in route.steps if step.method.stage is not Stage.LABEL)
    own = tuple(step for step in route.steps if step.method.name == method)
    steps = others
    if is_instance(name):
        label = own[0] if own else _default(method)
        at = sum(step.method.stage in (Stage.PROBABILITY, Stage.FILL) for step in others)
        at += sum(step.method.traits.needs_probability for step in others)
        steps = (*others[:at], label, *others[at:])
    return Route(NamedSource("tree"), route.threshold, "hard", route.resampling, steps, route.place)


def _default(method: str) -> Step:
    parameters = {"min_distance_voxels": 10} if method == "watershed" else {}
    entry = METHODS.by_name[method]
    return Step(entry, entry.parameters.model_validate(parameters).model_dump())


def _process(task: _Task, out: Path, budget: Budget, say: Callable[[str], None]) -> None:
    entry, plan, target = task.entry, task.plan, task.plan.target
    attributes = _attributes(entry.volume)
    scratch_folder = out / f".{os.getpid()}{PARTIAL}"
    shutil.rmtree(scratch_folder, ignore_errors=True)

    def scratch(name: str, dtype: np.dtype[Any]) -> ChunkedArray:
        return scratch_array(scratch_folder, target, name, dtype)

    try:
        with replacing(out / entry.relative) as partial:

            def final(name: str, dtype: np.dtype[Any]) -> ChunkedArray:
                return ChunkedArray.kept(partial, target.grid.shape, dtype, _ENCODING, attributes)

            probability = Probability(plan, {(entry.name, "tree"): _probabilities(entry.volume)})
            assembly = CropAssembly(plan, probability, scratch, final, budget)
            with Here(budget.deciding_workers) as engine:
                work = assemble_group(assembly, (entry.name,), joint=False, told=Told(say=say))
                ((_, outcome),) = done(engine, [work])
            _refuse_other_scale(entry.volume, outcome.highest)
        _copy_group_files(entry, out)
    finally:
        shutil.rmtree(scratch_folder, ignore_errors=True)


def _attributes(volume: Volume) -> dict[str, Any]:
    """Those of the array, which is written with axes z, y, x whatever their order was."""
    attributes = dict(volume.array.attrs)
    if not volume.order:
        return attributes
    if "voxel_size" not in attributes:
        raise VolumeError(
            f"{volume.place}: the group above it says that its axes are not z, y, x; write them in that order"
        )
    others = {key: value for key, value in attributes.items() if key not in NAMES_OF_AXES}
    grid = volume.grid
    return {**others, "voxel_size": list(grid.voxel_size_nm), "translation": list(grid.origin_nm)}


def _probabilities(volume: Volume) -> StoredProbabilities:
    """Floats from 0 to 1, shares of what an unsigned type can hold, or a mask: one whole number beside 0."""
    if volume.dtype.kind not in "ui":
        return StoredProbabilities(Fractions(volume))
    of_mask = _value_of_mask(volume)
    if of_mask is not None:
        return StoredProbabilities(Fractions(volume, of_mask))
    if volume.dtype.kind == "i":
        raise VolumeError(f"{volume.place}: its type {volume.dtype} holds masks only; use uint8 or float")
    return StoredProbabilities(volume, is_assumed=True)


def _value_of_mask(volume: Volume) -> int | None:
    """The only value there is beside 0, or 1 where all is 0; None as soon as there are two, or one below 0."""
    found = 0
    present = volume.present(volume.grid.box.to_chunks(volume.chunks))
    # of those that were never written one tells of all
    for chunk in [*np.argwhere(present), *np.argwhere(~present)[:1]]:
        values = volume.read(Box.at(chunk, (1, 1, 1)).of_chunks(volume.chunks).intersect(volume.grid.box))
        low, high = int(values.min()), int(values.max())
        if low == high == 0:
            continue
        found = found or high
        if high != found or low < 0 or not ((values == 0) | (values == found)).all():
            return None
    return found or 1


def _refuse_other_scale(volume: Volume, highest: Mapping[str, int]) -> None:
    for value in highest.values():
        if is_far_below(value, volume.dtype):
            raise VolumeError(
                f"{volume.place}: its highest value is {value} where {volume.dtype} goes up to "
                f"{np.iinfo(volume.dtype).max}, so these are no probabilities, and no mask of one value; write masks, "
                "or floats from 0 to 1"
            )


def _entries(root: Path) -> Iterator[Entry]:
    """Every predicted array of known class, in the order of its path."""
    if not root.is_dir():
        raise VolumeError(f"{root}: there is no such folder of predictions")
    for dataset in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for crop in sorted(path for path in dataset.iterdir() if path.is_dir()):
            for place in sorted(path for path in crop.iterdir() if path.is_dir()):
                if place.name in all_classes():
                    array = place / "s0" if (place / "s0").is_dir() else place
                    names = dataset.name.removesuffix(".zarr"), crop.name.removeprefix("crop"), place.name
                    yield Entry(array.relative_to(root), *names, open_volume(place))


def _copy_group_files(entry: Entry, out: Path) -> None:
    """Group metadata above the array, as it was."""
    source = Path(entry.volume.place)
    for depth, parent in enumerate(entry.relative.parents):
        above = source.parents[depth]
        for name in (".zgroup", ".zattrs", "zarr.json"):
            if (above / name).is_file() and not (out / parent / name).exists():
                shutil.copyfile(above / name, out / parent / name)
