"""What decides the arrays of a group of classes: while it is the same, what was assembled before is right."""

from collections.abc import Sequence

from ensemble.plan import Budget, CropPlan, EmptySource, describe_route, made_from
from ensemble.predict import Predictor, shared_key
from ensemble.support import code_digest, digest, library_versions


def group_key(crop: CropPlan, group: Sequence[str], predictor: Predictor, budget: Budget, *, joint: bool) -> str:
    """A digest of all that decides the group's arrays to the last byte.

    Routes and sources of the classes and of those they are made of, the probabilities by their own keys, the
    code of this folder and all it imports, and the libraries that compute. The memory lent counts only where a
    component may be too large for it.
    """
    made_by = {"code": code_digest("ensemble.build"), "libraries": library_versions()}
    if all(isinstance(crop.routes[name].source, EmptySource) for name in group):
        return digest({"grid": crop.target.grid, "empty": group, **made_by})
    names = made_from(crop.routes, group)
    return digest(
        {
            "grid": crop.target.grid,
            "group": group,
            "routes": {name: describe_route(crop.routes[name]) for name in names},
            "order": [name for name in crop.routes if name in group],
            "jobs": [
                (job.source, shared_key(predictor.keys[job.identity]))
                for job in crop.jobs
                if set(job.classes) & set(names)
            ],
            "stored": {
                f"{name} {source}": field.identity
                for (name, source), field in predictor.given[crop.target.crop].items()
                if name in names
            },
            "joint": joint,
            "cut_within": budget.split_bytes if budget.may_coarsen(crop) else None,
            **made_by,
        }
    )
