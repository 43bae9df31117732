"""Reading what a recipe file says of one source into a value; what cannot be meant is refused with its key."""

import re
import string
from collections.abc import Callable, Sequence

from ensemble.core import all_classes
from ensemble.plan.recipe import LabelSource, ModelSource, PredictionSource, Source
from ensemble.plan.recipe_schema import GridEntry, SourceEntry
from ensemble.storage import GivenGrid, foreign_protocol
from ensemble.support import RecipeError, YamlKey, suggestion
from registry import MODEL_URI

EMPTY = "empty"

Wrong = Callable[[YamlKey, str], RecipeError]
"""The error for what is wrong at a key of the file."""

_OF_PREDICTIONS = {
    "channels": "stored predictions have channels to be named",
    "activation": "stored predictions have raw outputs to be made probabilities",
    "scale": "stored predictions have a value that stands for 1",
}
_OF_MODELS = {
    "tta": "a model can be run with test-time augmentation",
    "em": "a model has learned from EM",
    "overlap": "a model has patches that overlap",
    "context": "a model can be shown EM around a crop",
}
_FIELDS = {"root", "dataset", "crop", "class"}


def read_source(name: str, raw: SourceEntry, wrong: Wrong) -> Source:
    """The source of that name."""
    key = ("sources", name)
    if name == EMPTY or not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
        raise wrong(key, f"{name!r} cannot be a source's name; use letters, digits, - and _ (not 'empty')")
    given = [kind for kind in ("model", "predictions", "labels") if getattr(raw, kind) is not None]
    if len(given) != 1:
        raise wrong(key, "say what it is: exactly one of model, predictions, labels")
    for kind, options in (("predictions", _OF_PREDICTIONS), ("model", _OF_MODELS)):
        for option, what in options.items():
            if given != [kind] and getattr(raw, option) is not None:
                raise wrong((*key, option), f"only {what}")
    grid = None if raw.grid is None else _grid((*key, "grid"), raw.grid, raw, wrong)
    if raw.model is not None:
        if not re.fullmatch(MODEL_URI, raw.model):
            raise wrong((*key, "model"), f"{raw.model!r} is not models:/NAME@ALIAS or models:/NAME/VERSION")
        return ModelSource(raw.model, raw.tta or "none", raw.em or "as trained", raw.overlap, raw.context)
    template = getattr(raw, given[0])
    _check_template((*key, given[0]), template, wrong)
    if raw.labels is not None:
        return LabelSource(template, grid)
    return _predictions(key, raw, template, grid, wrong)


def _grid(key: YamlKey, said: GridEntry, raw: SourceEntry, wrong: Wrong) -> GivenGrid:
    if raw.model is not None:
        raise wrong(key, "only stored predictions and labels have a grid to be told; a model's card says its voxels")
    wanted = "zyxc" if raw.channels else "zyx"
    if said.axes is not None and sorted(said.axes) != sorted(wanted):
        raise wrong((*key, "axes"), f"{said.axes!r} does not name each of {', '.join(wanted)} once")
    if said.is_crop and said.origin_nm is not None:
        raise wrong((*key, "origin_nm"), "a grid that is the crop's begins where it does; say one of both")
    if said == GridEntry():
        raise wrong(key, "says nothing; say crop, or voxel_size_nm and origin_nm")
    return GivenGrid(said.voxel_size_nm, said.origin_nm, said.axes, said.is_crop)


def _predictions(
    key: YamlKey, raw: SourceEntry, template: str, grid: GivenGrid | None, wrong: Wrong
) -> PredictionSource:
    if raw.activation is not None and raw.scale is not None:
        raise wrong((*key, "scale"), "raw outputs have no scale; say activation or scale, not both")
    if raw.activation == "softmax" and not raw.channels:
        raise wrong((*key, "activation"), "softmax is taken over all channels of an array; list them under channels")
    return PredictionSource(template, _channels(key, raw.channels or [], wrong), raw.activation, raw.scale, grid)


def _channels(key: YamlKey, names: Sequence[str | None], wrong: Wrong) -> tuple[str | None, ...]:
    for index, name in enumerate(names):
        at = (*key, "channels", index)
        if name is not None and name not in all_classes():
            raise wrong(at, f"unknown class {name!r}{suggestion(name, all_classes())}")
        if name is not None and name in names[:index]:
            raise wrong(at, f"{name} is there twice; name each channel's own class, or null")
    return tuple(names)


def _check_template(key: YamlKey, template: str, wrong: Wrong) -> None:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise wrong(key, f"{template!r} is not a template: {error}") from error
    for _, name, layout, conversion in parts:
        if name is not None and name not in _FIELDS:
            raise wrong(key, f"unknown placeholder {{{name}}}{suggestion(name, _FIELDS)}")
        if layout or conversion:
            raise wrong(key, f"{{{name}}} cannot be laid out otherwise; write {{{name}}} alone")
    if foreign := foreign_protocol(template):
        raise wrong(key, foreign)
