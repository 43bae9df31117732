"""All that will be done, before anything is."""

from ensemble.plan.budget import BAND_BYTES, PASS_SHARE, Budget
from ensemble.plan.describe import (
    describe_route,
    expression_as_recipe,
    model_source_as_recipe,
    route_in_words,
    source_in_words,
    step_as_recipe,
    voxel_size_in_words,
)
from ensemble.plan.em_likeness import UnlikeEM, refuse_unlike, unlike_range
from ensemble.plan.hours import Hours, Pacing, device_in_words, units
from ensemble.plan.job import FORWARD_PASSES, ROWS_READ, STORED_CHUNK, Job, Precision, patches_per_pass
from ensemble.plan.lock import lock_contents, write_lock
from ensemble.plan.needed_em import em_needed
from ensemble.plan.network_use import Arithmetic, Deviation, NetworkUse, plain_use
from ensemble.plan.parts import Cut, Part, cut_that_fits, longest_slabs_first, parts_of, slabs_for
from ensemble.plan.plan import CropPlan, Plan, classes_in, made_from, sources_in, sources_of
from ensemble.plan.plan_description import ClassDescription, ModelUse, PlanCost, PlanDescription
from ensemble.plan.recipe import (
    TTA,
    EmptySource,
    Expression,
    LabelSource,
    MixedSource,
    ModelSource,
    NamedSource,
    OfClasses,
    PredictionSource,
    Recipe,
    Route,
    Source,
)
from ensemble.plan.recipe_reader import find_recipe, load_recipe
from ensemble.plan.request import Prepared, Request, name_of_build, predictions_of, prepare, registry_in, registry_of
from ensemble.plan.windows import patches_along
from ensemble.plan.workers import Workers

__all__ = [
    "BAND_BYTES",
    "FORWARD_PASSES",
    "PASS_SHARE",
    "ROWS_READ",
    "STORED_CHUNK",
    "TTA",
    "Arithmetic",
    "Budget",
    "ClassDescription",
    "CropPlan",
    "Cut",
    "Deviation",
    "EmptySource",
    "Expression",
    "Hours",
    "Job",
    "LabelSource",
    "MixedSource",
    "ModelSource",
    "ModelUse",
    "NamedSource",
    "NetworkUse",
    "OfClasses",
    "Pacing",
    "Part",
    "Plan",
    "PlanCost",
    "PlanDescription",
    "Precision",
    "PredictionSource",
    "Prepared",
    "Recipe",
    "Request",
    "Route",
    "Source",
    "UnlikeEM",
    "Workers",
    "classes_in",
    "cut_that_fits",
    "describe_route",
    "device_in_words",
    "em_needed",
    "expression_as_recipe",
    "find_recipe",
    "load_recipe",
    "lock_contents",
    "longest_slabs_first",
    "made_from",
    "model_source_as_recipe",
    "name_of_build",
    "parts_of",
    "patches_along",
    "patches_per_pass",
    "plain_use",
    "predictions_of",
    "prepare",
    "refuse_unlike",
    "registry_in",
    "registry_of",
    "route_in_words",
    "slabs_for",
    "source_in_words",
    "sources_in",
    "sources_of",
    "step_as_recipe",
    "units",
    "unlike_range",
    "voxel_size_in_words",
    "write_lock",
]
