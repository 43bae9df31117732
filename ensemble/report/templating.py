"""Pages from templates: text is escaped, and a name that is not there is an error."""

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def render_template(name: str, **values: Any) -> str:
    """The page that a file of ``templates`` makes of values."""
    template = files("ensemble.report").joinpath("templates", name).read_text(encoding="utf-8")
    return _environment().from_string(template).render(**values)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["count"] = lambda value: "–" if value is None else f"{value:,}"
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.1%}"
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.4f}"
    environment.filters["embedded"] = embedded_json
    return environment


def embedded_json(value: Any) -> "Markup":
    """JSON for the inside of a script element."""
    from markupsafe import Markup

    return Markup(json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
