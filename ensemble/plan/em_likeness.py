"""Whether the EM of a build is of the kind that its models learned from; told from metadata alone."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ensemble.plan.job import Job
from ensemble.plan.plan import Plan
from ensemble.plan.recipe import ModelSource
from ensemble.storage import EM
from ensemble.support import RecipeError
from registry import Card

WAY_OUT = "convert the EM, correct em_dtype in the model's card, or say `em: any` in the source"


@dataclass(frozen=True)
class UnlikeEM:
    """A source that meets other EM than its model learned from, told in ``line``; ``is_wanted``: the recipe says so."""

    line: str
    is_wanted: bool

    @property
    def warning(self) -> str:
        return self.line if self.is_wanted else f"{self.line}; {WAY_OUT}"


def unlike_em(plan: Plan, em: EM) -> tuple[UnlikeEM, ...]:
    """What of a plan runs on EM of another type than the training's, each source and data set once."""
    found = {}
    for job in plan.jobs:
        dtype = em.pyramid(job.dataset).levels[job.fit.level].dtype
        fault = _fault(job.model.card, dtype.newbyteorder("=").name)
        if fault is not None:
            line = f"{plan.recipe.source_places[job.source]}: the EM of {job.dataset} is {dtype.name}, but {fault}"
            found[job.source, job.dataset] = UnlikeEM(line, _is_wanted(plan, job))
    return tuple(found.values())


def refuse_unlike(unlike: Iterable[UnlikeEM]) -> None:
    """Raise RecipeError for the first that the recipe does not want."""
    unwanted = [entry for entry in unlike if not entry.is_wanted]
    if unwanted:
        more = f" (and {len(unwanted) - 1} more)" if len(unwanted) > 1 else ""
        raise RecipeError(f"{unwanted[0].line}{more}; {WAY_OUT}")


def _is_wanted(plan: Plan, job: Job) -> bool:
    source = plan.recipe.sources[job.source]
    return isinstance(source, ModelSource) and source.em == "any"


def _fault(card: Card, dtype: str) -> str | None:
    """Why the card's normalisation is not for such EM; one by the image's own statistics is for any."""
    if not card.normalisation.is_fixed or dtype == (card.em_dtype or _implied(card)):
        return None
    if card.em_dtype is None:
        return f"the card of {card.name} says no em_dtype and its normalisation is that of {_implied(card)}"
    low_high = "" if card.em_range is None else " from {:g} to {:g}".format(*card.em_range)
    return f"{card.name} learned from {card.em_dtype}{low_high}"


def _implied(card: Card) -> str:
    """The type whose range a normalisation in numbers is made for, where the card does not say it."""
    divide = card.normalisation.divide
    return "uint16" if not isinstance(divide, str) and divide > np.iinfo(np.uint8).max + 1 else "uint8"
