"""What a plan, of a build or of a tuning, looks like on a terminal."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table

from ensemble.support import counted, duration

if TYPE_CHECKING:
    from ensemble.plan import Budget, CropPlan, Job, Plan
    from ensemble.tune import TuningPlan, TuningTask


def plan_tables(value: "Plan", budget: "Budget") -> Iterator[RenderableType]:
    """The routes, class by class where crops agree, and what they cost."""
    from ensemble.plan import PlanCost

    routes = Table("class", "crops", "source", "resampled", "decision", "post-processing", title="routes")
    for (name, *cells), crops in _routes(value).items():
        routes.add_row(name, " ".join(crops), *cells)
    yield routes
    yield _passes(value, budget)
    cost = PlanCost.of(value, budget)
    yield (
        f"{counted(cost.arrays, 'array')}, {cost.voxels / 1e9:.2f} Gvoxel; "
        f"{counted(cost.forward_passes, 'forward pass', 'forward passes')}, "
        f"{size_in_words(cost.stored_bytes)} of probabilities before compression, "
        f"about {size_in_words(cost.peak_memory_bytes)} of memory at the peak"
    )


def _passes(value: "Plan", budget: "Budget") -> Table:
    jobs = Table(
        "source", "model", "crop", "EM", "patches", "passes", "Mvoxel", "stored", "memory", "sums", title="passes"
    )
    for job in value.jobs:
        jobs.add_row(*_job(job, budget))
    return jobs


def _routes(value: "Plan") -> dict[tuple[str, ...], list[str]]:
    rows: dict[tuple[str, ...], list[str]] = {}
    for crop in value.crops:
        for name in crop.target.classes:
            rows.setdefault(_route(crop, name), []).append(crop.target.crop)
    return dict(
        sorted(
            rows.items(),
            key=lambda row: (
                list(value.crops[0].target.classes).index(row[0][0])
                if row[0][0] in value.crops[0].target.classes
                else 999
            ),
        )
    )


def _route(crop: "CropPlan", name: str) -> tuple[str, ...]:
    from ensemble.plan import ClassDescription

    if name not in crop.claimed:
        return (name, "empty", "", "zeros", "")
    route, row = crop.routes[name], ClassDescription.of(crop, name)
    source = _source(row.source)
    versions = ", ".join(f"{s} = {m.model.removeprefix('models:/')}" for s, m in row.models.items() if s in source)
    decision = f"p > {route.threshold:g}" + ("" if route.weight == 1 else f", weight {route.weight}")
    chain = " → ".join(_step(step) for step in row.postprocess)
    resampled = ", ".join(dict.fromkeys(m.resampled for m in row.models.values()))
    return (name, f"{source} ({versions})" if versions else source, resampled, decision, chain)


def _source(described: Any) -> str:
    if isinstance(described, str):
        return described
    ((how, members),) = described.items()
    parts = [f"{m[1]:g}·{_source(m[0])}" if isinstance(m, list) else m for m in members]
    return f"{how}({', '.join(parts)})"


def _step(described: Mapping[str, Mapping[str, Any]]) -> str:
    ((name, parameters),) = described.items()
    return name + "".join(
        f" {key} {value:g}" if isinstance(value, float) else f" {key} {value}" for key, value in parameters.items()
    )


def _job(job: "Job", budget: "Budget") -> tuple[str, ...]:
    from ensemble.plan import voxel_size_in_words

    return (
        job.source,
        f"{job.model.name}/{job.model.version}",
        job.crop,
        f"{voxel_size_in_words(job.level_grid)} nm, {job.em_in_words}",
        f"{job.patches:,}" + (f" ({job.context_patches:,} for context)" if job.context_patches else ""),
        f"{job.forward_passes:,}",
        f"{job.lattice.size / 1e6:.1f}",
        size_in_words(job.stored_bytes),
        size_in_words(budget.predicting_bytes(job)),
        budget.sums_in_words(job),
    )


def tuning_tables(value: "TuningPlan", task: "TuningTask") -> Iterator[RenderableType]:
    """What tuning would try of each class, the passes it needs, and the hours."""
    from ensemble.predict import found_in_words

    table = Table("class", "crops", "candidates", "sources and mixes", title="candidates", title_justify="left")
    for unit, space in value.units.items():
        table.add_row(
            unit.label, " ".join(unit.crops), ", ".join(value.candidates(unit)) or "as it is", str(len(space.sources))
        )
    yield table
    for text in value.skipped:
        yield f"not tried: {text}"
    if value.survey.jobs:
        yield _passes(value.survey, task.request.budget)
        found = found_in_words(value.found, len(value.survey.jobs))
        yield f"predicting: {found}, about {duration(value.predicting_s)}, by a patch of each network that was timed"
    limit = "" if task.minutes is None else f"; nothing new is begun after {duration(60 * task.minutes)} (--minutes)"
    voxels = value.evaluated_voxels / 1e9
    yield f"searching: at most {voxels:.2f} Gvoxel to decide and count, about {duration(value.searching_s)}{limit}"
    yield "nothing was predicted or tried; without --plan it begins"


def size_in_words(count: float) -> str:
    """So many bytes, in the largest unit that fits."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
