"""Whether the EM of a build is of the kind that its models learned from, by its metadata and its grey values."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ensemble.plan.job import Job
from ensemble.plan.plan import Plan
from ensemble.plan.recipe import ModelSource
from ensemble.storage import EM
from ensemble.support import RecipeError
from registry import Card

WAY_OUT = "convert the EM, correct em_dtype or em_range in the model's card, or say `em: any` in the source"

_FAR_BELOW = 20
"""Grey values that span less than this part of what a model learned from are on another scale."""


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


def unlike_range(plan: Plan, job: Job, seen: tuple[float, float]) -> UnlikeEM | None:
    """What is odd of a job's lowest and highest grey value, as far as they were looked at; None where nothing is.

    One value alone, such as black where nothing was imaged, says nothing of the scale.
    """
    low, high = seen
    learned = _learned_range(job.model.card)
    if learned is None or low == high:
        return None
    span = learned[1] - learned[0]
    beyond = max(learned[0] - low, high - learned[1]) > span / 2
    if not beyond and (high - low) * _FAR_BELOW >= span:
        return None
    name, place = job.model.card.name, plan.recipe.source_places[job.source]
    line = f"{place}: the EM of {job.dataset} goes from {low:g} to {high:g}, but {name} learned from "
    return UnlikeEM(f"{line}{learned[0]:g} to {learned[1]:g}", _is_wanted(plan, job))


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


def _learned_range(card: Card) -> tuple[float, float] | None:
    """As the card says it; where it is silent, all that a division alone scales to 1, if that is a whole type's."""
    subtract, divide = card.normalisation.subtract, card.normalisation.divide
    if not card.normalisation.is_fixed or isinstance(divide, str):
        return None
    if card.em_range is not None:
        return card.em_range
    return (0, divide) if subtract == 0 and divide >= np.iinfo(np.uint8).max else None


def _implied(card: Card) -> str:
    """The type whose range a normalisation in numbers is made for, where the card does not say it."""
    divide = card.normalisation.divide
    return "uint16" if not isinstance(divide, str) and divide > np.iinfo(np.uint8).max + 1 else "uint8"
