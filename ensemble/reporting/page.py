"""The page: facts and pictures in one file that needs nothing else."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from ensemble.reporting.facts import STATUSES
from ensemble.reporting.pictures import View

SIGNS = {"written": "●", "empty": "○", "likely": "▲", "unclaimed": "–", "fault": "✕"}


def render(
    facts: Mapping[str, Any],
    pictures: Mapping[str, Sequence[View]],
    charts: Mapping[str, str],
    curves: Mapping[str, str],
    judged: Sequence[Mapping[str, Any]],
) -> str:
    """The whole page. ``pictures``: "crop557/mito" -> its views; ``charts``: class -> a picture of its sizes.

    Where truth was given, ``curves``: class -> its score along the threshold; ``judged``: objects worth a look.
    """
    from jinja2 import Environment, StrictUndefined

    template = files("ensemble").joinpath("reporting/page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["count"] = lambda value: "–" if value is None else f"{value:,}"
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.1%}"
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.4f}"
    environment.filters["embedded"] = _embedded
    stored = {
        place: [{"axis": v.axis, "position": v.position, **v.layers} for v in views]
        for place, views in pictures.items()
    }
    return environment.from_string(template).render(
        facts=facts, pictures=stored, charts=charts, curves=curves, judged=judged, signs=SIGNS, statuses=STATUSES
    )


def _plain(view: View) -> dict[str, Any]:
    return {"axis": view.axis, "position": view.position, **view.layers}


def _embedded(value: Any) -> Any:
    """JSON for the inside of a script element."""
    from markupsafe import Markup

    return Markup(json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
