"""The page: facts and pictures in one file that needs nothing else."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from ensemble.report.facts import STATUSES
from ensemble.report.pictures import View

RELATIONS = 12
"""So many of the relations that are broken are shown at once."""

SIGNS = {"written": "●", "empty": "○", "likely": "▲", "unclaimed": "–", "fault": "✕"}


def render(
    facts: Mapping[str, Any],
    pictures: Mapping[str, Sequence[View]],
    charts: Mapping[str, str],
    curves: Mapping[str, str],
    judged: Sequence[Mapping[str, Any]],
    changed: Sequence[Mapping[str, Any]],
) -> str:
    """The whole page. ``pictures``: "crop557/mito" -> its views; ``charts``: class -> a picture of its sizes.

    Where truth was given, ``curves``: class -> its score along the threshold; ``judged``: objects worth a look.
    ``changed``: where joint decoding changed a class most.
    """
    from jinja2 import Environment, StrictUndefined

    template = files("ensemble.report").joinpath("templates/page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["count"] = lambda value: "–" if value is None else f"{value:,}"
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.1%}"
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.4f}"
    environment.filters["embedded"] = _embedded
    environment.globals["RELATIONS"] = RELATIONS
    stored = {
        place: [
            {"axis": v.axis, "position": v.position, "where": v.where, "busiest": v.busiest, **v.layers} for v in views
        ]
        for place, views in pictures.items()
    }
    return environment.from_string(template).render(
        facts=facts,
        pictures=stored,
        charts=charts,
        curves=curves,
        judged=judged,
        changed=changed,
        signs=SIGNS,
        statuses=STATUSES,
    )


def _embedded(value: Any) -> Any:
    """JSON for the inside of a script element."""
    from markupsafe import Markup

    return Markup(json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
