"""What stands in the way of a build, found before the evening it is started on: a line each, with what to do."""

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ensemble.core import Target, load_manifest, select_targets
from ensemble.plan import ModelSource, Prepared, Request, load_recipe, prepare
from ensemble.predict import Predictor, find_device, found_in_words
from ensemble.storage import EM
from ensemble.support import EnsembleError, QuietProgress, cores, counted, default_memory_bytes, has_gpu
from registry import Registry

State = Literal["good", "look", "wrong"]
_GIB = 1 << 30
_WORK_SHARE = 0.1
"""About how much of arrays and predictions remains once compressed, at least; less free space is too little."""


@dataclass(frozen=True)
class Finding:
    """``good``, worth a ``look``, or ``wrong``: then a build would end in it."""

    state: State
    about: str
    text: str


def diagnose(registry: Registry, request: Request | None = None) -> Iterator[Finding]:
    """Of this machine and the registry, and of what a build of ``request`` needs; each as soon as it is found."""
    yield from _machine()
    yield from _told("registry", lambda: _registry(registry))
    if request is None:
        return
    looked = list(_told("data", lambda: _data(request)))
    yield from looked
    if any(one.state == "wrong" for one in looked):
        return
    try:
        prepared = prepare(request, registry)
    except EnsembleError as error:
        yield Finding("wrong", "recipe", str(error))
        return
    yield from _told("recipe", lambda: _recipe(prepared))
    yield from _told("memory", lambda: _memory(request, prepared))
    yield from _told("disk", lambda: _disk(request, prepared))
    yield from _told("predictions", lambda: _predictions(request, prepared, registry))


def _told(about: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What is found; an error ends the looking and is what is wrong."""
    try:
        yield from look()
    except EnsembleError as error:
        yield Finding("wrong", about, str(error))


def _machine() -> Iterator[Finding]:
    kind = find_device("auto").type
    if kind == "cpu" and has_gpu():
        yield Finding("wrong", "GPU", "there is one, but this PyTorch cannot use it; install a PyTorch built for it")
    elif kind == "cpu":
        yield Finding("look", "GPU", f"none here: networks run on {cores()} CPU threads")
    else:
        yield Finding("good", "GPU", f"networks run on {kind}")
    yield Finding("good", "machine", f"{cores()} cores, {2 * default_memory_bytes() / _GIB:.0f} GiB of memory")


def _registry(registry: Registry) -> Iterator[Finding]:
    versions = registry.versions()
    if versions:
        yield Finding("good", "registry", f"{counted(len(versions), 'model version')} in {registry.address}")
    else:
        yield Finding("look", "registry", f"nothing is registered in {registry.address}; ensemble register CHECKPOINT")
    for line in registry.broken:
        yield Finding("look", "registry", line)
    fault = registry.runs.write_fault()
    if fault is not None:
        yield Finding("look", "registry", f"{fault}; builds go on and will not be recorded")


def _data(request: Request) -> Iterator[Finding]:
    needed = any(isinstance(source, ModelSource) for source in load_recipe(request.recipe).sources.values())
    em = EM(request.data_root, absent_is_zero=request.absent_is_zero)
    targets = select_targets(load_manifest(request.manifest), request.crops, request.classes)
    crops: dict[str, list[Target]] = {}
    for target in targets:
        crops.setdefault(target.dataset, []).append(target)
    for dataset, of_dataset in crops.items():
        names = " ".join(target.crop for target in of_dataset)
        try:
            levels = em.levels(dataset)
        except EnsembleError as error:
            yield Finding("wrong" if needed else "look", "data", f"{dataset} (crops {names}): {error}")
            continue
        finest = min(levels, key=lambda grid: math.prod(grid.voxel_size_nm)).voxel_size_nm
        size = "x".join(f"{nm:g}" for nm in finest)
        yield Finding("good", "data", f"{dataset} (crops {names}): {counted(len(levels), 'level')} from {size} nm")


def _recipe(prepared: Prepared) -> Iterator[Finding]:
    jobs = counted(len(prepared.plan.jobs), "pass of a model over a crop", "passes of models over crops")
    yield Finding("good", "recipe", f"{prepared.plan.recipe.name}: {jobs} planned")
    for line in (*prepared.moved, *prepared.warnings):
        yield Finding("look", "recipe", line)
    prepared.check()


def _memory(request: Request, prepared: Prepared) -> Iterator[Finding]:
    request.budget.check(prepared.plan)
    needed, given = request.budget.peak_bytes(prepared.plan), request.budget.memory_bytes
    yield Finding("good", "memory", f"about {needed / _GIB:.1f} GiB at the peak, of {given / _GIB:.1f} to stay within")


def _disk(request: Request, prepared: Prepared) -> Iterator[Finding]:
    """Whole arrays and predictions are the most that may be needed; what is left of them compressed is the least."""
    arrays = sum(crop.target.grid.size * len(crop.claimed) for crop in prepared.plan.crops)
    most = arrays + sum(job.stored_bytes for job in prepared.plan.jobs)
    free = shutil.disk_usage(_existing(request.out)).free
    state: State = "good" if free > most else "look" if free > _WORK_SHARE * most else "wrong"
    todo = "" if state == "good" else "; free some, or name another disk with --out and --cache"
    text = f"{free / _GIB:.1f} GiB free at {request.out}; at most {most / _GIB:.1f} needed, before compression{todo}"
    yield Finding(state, "disk", text)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.exists())


def _predictions(request: Request, prepared: Prepared, registry: Registry) -> Iterator[Finding]:
    predictor = Predictor.of(request, prepared, registry, QuietProgress())
    jobs = len(prepared.plan.jobs)
    for line in predictor.look_ahead():
        yield Finding("look", "predictions", line)
    left = predictor.open_jobs
    yield Finding("good", "predictions", found_in_words(jobs - len(left), jobs))
    yield Finding("good", "time", prepared.hours(left).in_words)
