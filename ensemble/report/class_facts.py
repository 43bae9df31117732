"""What a report says of one class over all crops: where it comes from, and how much there is of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ensemble.core import is_instance
from ensemble.methods import add_sizes_nm3
from ensemble.plan import ClassDescription, ModelUse
from ensemble.report.finished_build import FinishedBuild
from ensemble.submission import GENEROUS_TRUTH_OBJECTS, ArrayContents


@dataclass(frozen=True)
class ModelFacts:
    """A model of a route; ``link`` to its page where an MLflow server is known."""

    model: str
    validation: float | None
    truth_sizes_log2_nm3: Mapping[str, int]
    voxel_size_nm: str
    link: str | None


@dataclass(frozen=True)
class RouteFacts:
    """How a class was made in the ``crops`` that share it."""

    source: Any
    threshold: float
    weight: float | str
    postprocess: list[dict[str, dict[str, Any]]]
    words: str
    models: Mapping[str, ModelFacts]
    crops: tuple[str, ...]


@dataclass(frozen=True)
class MostObjects:
    """The crop with the most objects of a class, and how many the truth must have there for them to count."""

    crop: str
    objects: int
    truth_objects_needed: int | None


@dataclass(frozen=True)
class ClassFacts:
    """A class over all its crops: ``share`` of their voxels, objects by the power of two of their size in nm3.

    ``training_sizes_log2_nm3``: those that a model learned from; ``truth_objects``: None without truth;
    ``too_many``: crops with so many objects that few truths let them count.
    """

    instance: bool
    routes: tuple[RouteFacts, ...]
    nonzero_voxels: int
    share: float
    objects: int
    at_border: int
    truth_objects: int | None
    most_objects: MostObjects | None
    too_many: tuple[str, ...]
    sizes_log2_nm3: Mapping[str, int]
    training_sizes_log2_nm3: Mapping[str, int]


def facts_of_class(
    build: FinishedBuild, name: str, contents: Mapping[str, Mapping[str, ArrayContents]], registry_address: str
) -> ClassFacts:
    """The facts of one class; ``contents``: crop ("crop557") -> class -> what the check counted."""
    routes = _routes(build, name, registry_address)
    arrays = {crop: row[name] for crop, row in contents.items() if name in row}
    sizes: dict[str, int] = {}
    for crop, array in arrays.items():
        voxel_size_nm = build.grid(crop.removeprefix("crop")).voxel_size_nm
        add_sizes_nm3(sizes, array.sizes_log2_voxels or {}, voxel_size_nm)
    nonzero_voxels = sum(array.nonzero_voxels for array in arrays.values())
    models = [model for route in routes for model in route.models.values()]
    return ClassFacts(
        instance=is_instance(name),
        routes=routes,
        nonzero_voxels=nonzero_voxels,
        share=nonzero_voxels / sum(target.grid.size for target in build.targets if name in target.classes),
        objects=sum(array.objects or 0 for array in arrays.values()),
        at_border=sum(array.at_border or 0 for array in arrays.values()),
        truth_objects=None,
        most_objects=_most_objects(arrays),
        too_many=tuple(c for c, array in arrays.items() if (array.truth_objects_needed or 0) > GENEROUS_TRUTH_OBJECTS),
        sizes_log2_nm3=sizes,
        training_sizes_log2_nm3=next((m.truth_sizes_log2_nm3 for m in models if m.truth_sizes_log2_nm3), {}),
    )


def _most_objects(arrays: Mapping[str, ArrayContents]) -> MostObjects | None:
    counted = [(array.objects, crop) for crop, array in arrays.items() if array.objects]
    if not counted:
        return None
    objects, crop = max(counted)
    return MostObjects(crop, objects, arrays[crop].truth_objects_needed)


def _routes(build: FinishedBuild, name: str, registry_address: str) -> tuple[RouteFacts, ...]:
    """How the class was made; crops that do it alike together."""
    routes: list[RouteFacts] = []
    for crop_name, crop in build.plan.crops.items():
        if name in crop.classes:
            made = _route(crop.classes[name], registry_address)
            alike = [place for place, route in enumerate(routes) if replace(route, crops=()) == made]
            if not alike:
                routes.append(made)
            place = alike[0] if alike else -1
            routes[place] = replace(routes[place], crops=(*routes[place].crops, f"crop{crop_name}"))
    return tuple(routes)


def _route(made: ClassDescription, registry_address: str) -> RouteFacts:
    models = {source: _linked(model, registry_address) for source, model in made.models.items()}
    return RouteFacts(made.source, made.threshold, made.weight, made.postprocess, made.words, models, ())


def _linked(built: ModelUse, registry_address: str) -> ModelFacts:
    name, version = built.model.removeprefix("models:/").rsplit("/", 1)
    page = f"{registry_address.rstrip('/')}/#/models/{name}/versions/{version}"
    link = page if registry_address.startswith("http") else None
    return ModelFacts(built.model, built.validation, built.truth_sizes_log2_nm3, built.voxel_size_nm, link)
