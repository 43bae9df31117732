"""A plan as typed values: what ``plan.json`` says, and what a terminal shows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from ensemble.core import Grid
from ensemble.plan.budget import Budget
from ensemble.plan.describe import describe_route, route_in_words, voxel_size_in_words
from ensemble.plan.hours import Hours
from ensemble.plan.job import Job, Model
from ensemble.plan.network_use import NetworkUse
from ensemble.plan.plan import CropPlan, Plan
from ensemble.plan.recipe import ModelSource
from ensemble.plan.windows import Windowing


@dataclass(frozen=True)
class GridDescription:
    shape: list[int]
    voxel_size_nm: list[float]
    origin_nm: list[float]

    @classmethod
    def of(cls, grid: Grid) -> "GridDescription":
        return cls(list(grid.shape), list(grid.voxel_size_nm), list(grid.origin_nm))


@dataclass(frozen=True)
class JobDescription:
    """One pass of a model over a crop, with what it costs."""

    source: str
    model: str
    sha256: str
    tta: str
    classes: list[str]
    em_voxel_size_nm: list[float]
    em: str
    network_grid: GridDescription
    stored_grid: GridDescription
    patches: int
    patches_for_context: int
    forward_passes: int
    voxels: int
    stored_bytes: int
    partial_sums: str
    peak_memory_bytes: int

    @classmethod
    def of(cls, job: Job, budget: Budget) -> "JobDescription":
        return cls(
            source=job.source,
            model=f"models:/{job.model.name}/{job.model.version}",
            sha256=job.model.sha256,
            tta=job.tta,
            classes=list(job.classes),
            em_voxel_size_nm=list(job.level_grid.voxel_size_nm),
            em=job.em_in_words,
            network_grid=GridDescription.of(job.lattice),
            stored_grid=GridDescription.of(job.stored),
            patches=job.patches,
            patches_for_context=job.context_patches,
            forward_passes=job.forward_passes,
            voxels=job.lattice.size,
            stored_bytes=job.stored_bytes,
            partial_sums=budget.sums_in_words(job),
            peak_memory_bytes=budget.predicting_bytes(job),
        )


@dataclass(frozen=True)
class ModelUse:
    """A model that takes part in a class: how it is resampled, and what its card says of the class."""

    model: str
    resampled: str
    validation: float | None
    truth_sizes_log2_nm3: dict[str, int]
    voxel_size_nm: str

    @classmethod
    def of(cls, job: Job, target: Grid, name: str) -> "ModelUse":
        card = job.model.card
        return cls(
            model=f"models:/{job.model.name}/{job.model.version}",
            resampled=f"{voxel_size_in_words(job.stored)} → {voxel_size_in_words(target)} nm",
            validation=card.validation.get(name),
            truth_sizes_log2_nm3=dict(card.truth_sizes_log2_nm3.get(name, {})),
            voxel_size_nm="x".join(f"{v:g}" for v in dict.fromkeys(card.voxel_size_nm)),
        )


@dataclass(frozen=True)
class ClassDescription:
    """How one class of a crop is made. ``fallback``: the recipe has no entry of its own for it."""

    source: Any
    threshold: float
    weight: float | str
    resampling: str
    postprocess: list[dict[str, dict[str, Any]]]
    words: str
    claimed: bool
    models: dict[str, ModelUse]
    fallback: bool

    @classmethod
    def of(cls, crop: CropPlan, name: str, *, fallback: bool = False) -> "ClassDescription":
        route = crop.routes[name]
        models = {job.source: ModelUse.of(job, crop.target.grid, name) for job in crop.jobs if name in job.classes}
        return cls(
            **describe_route(route),
            words=route_in_words(route),
            claimed=name in crop.claimed,
            models=models,
            fallback=fallback,
        )


@dataclass(frozen=True)
class CropDescription:
    """One crop: how each of its classes is made, and the passes that takes."""

    dataset: str
    grid: GridDescription
    classes: dict[str, ClassDescription]
    jobs: list[JobDescription]
    assembling_memory_bytes: int
    bytes_uncompressed: int

    @classmethod
    def of(cls, crop: CropPlan, budget: Budget, named: Collection[str]) -> "CropDescription":
        """``named`` have an entry of their own in the recipe."""
        names = crop.target.classes
        return cls(
            dataset=crop.target.dataset,
            grid=GridDescription.of(crop.target.grid),
            classes={name: ClassDescription.of(crop, name, fallback=name not in named) for name in names},
            jobs=[JobDescription.of(job, budget) for job in crop.jobs],
            assembling_memory_bytes=budget.assembling_bytes(crop),
            bytes_uncompressed=crop.target.grid.size * len(names),
        )


@dataclass(frozen=True)
class ModelOfSource:
    """The version that a source of the recipe means, and how its patches lie."""

    uri: str
    tta: str
    overlap: float
    context: bool
    version: int

    @classmethod
    def of(cls, source: ModelSource, model: Model) -> "ModelOfSource":
        windowing = Windowing.of(source, model.card)
        return cls(source.uri, source.tta, windowing.overlap, windowing.context, model.version)


@dataclass(frozen=True)
class PlanCost:
    """What all of it comes to."""

    arrays: int
    voxels: int
    patches: int
    patches_for_context: int
    forward_passes: int
    stored_bytes: int
    peak_memory_bytes: int

    @classmethod
    def of(cls, plan: Plan, budget: Budget) -> "PlanCost":
        targets = [crop.target for crop in plan.crops]
        return cls(
            arrays=sum(len(target.classes) for target in targets),
            voxels=sum(target.grid.size * len(target.classes) for target in targets),
            patches=sum(job.patches for job in plan.jobs),
            patches_for_context=sum(job.context_patches for job in plan.jobs),
            forward_passes=sum(job.forward_passes for job in plan.jobs),
            stored_bytes=sum(job.stored_bytes for job in plan.jobs),
            peak_memory_bytes=budget.peak_bytes(plan),
        )


@dataclass(frozen=True)
class PlanDescription:
    """The whole plan, with its cost in sum, and what a person should know of it.

    ``left_out`` arrays of the manifest were not asked for. ``networks``: source -> how its network runs, in words.
    """

    recipe: str
    consistency: str
    sources: dict[str, ModelOfSource]
    crops: dict[str, CropDescription]
    cost: PlanCost
    left_out: int = 0
    warnings: list[str] = field(default_factory=list)
    hours: Hours | None = None
    networks: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        plan: Plan,
        budget: Budget,
        warnings: Sequence[str] = (),
        hours: Hours | None = None,
        uses: Mapping[str, NetworkUse] = MappingProxyType({}),
    ) -> "PlanDescription":
        recipe = plan.recipe
        return cls(
            recipe=recipe.name,
            consistency=recipe.consistency,
            sources={
                name: ModelOfSource.of(spec, plan.models[name])
                for name, spec in recipe.sources.items()
                if isinstance(spec, ModelSource) and name in plan.models
            },
            crops={crop.target.crop: CropDescription.of(crop, budget, recipe.rules) for crop in plan.crops},
            cost=PlanCost.of(plan, budget),
            left_out=plan.left_out,
            warnings=list(warnings),
            hours=hours,
            networks={source: use.in_words for source, use in uses.items()},
        )

    def as_plain(self) -> dict[str, Any]:
        """As ``plan.json`` has it."""
        return asdict(self)
