"""Pages from templates: what a recipe says is text, and what is not there is a fault."""

import json
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from ensemble.report.array_changes import ArrayChange, Difference
from ensemble.report.templating import embedded_json, render_template


def test_text_in_a_recipe_is_text_on_the_page():
    said = json.loads(embedded_json({"name": "</script><b>&"}))
    assert said == {"name": "</script><b>&"}
    assert "<" not in embedded_json({"name": "</script>"})


def test_a_place_that_looks_like_markup_is_text_and_a_missing_name_is_an_error():
    change = ArrayChange("crop1/<b>ecs</b>", both=1, only_a=2)
    difference = Difference(Path("a.zip"), Path("<i>.zip"), (change,), (), {}, {})
    page = render_template("diff.html.j2", difference=difference, shown=[])
    assert "<b>ecs</b>" not in page and "<i>.zip" not in page
    assert "&lt;i&gt;.zip" in page
    with pytest.raises(UndefinedError):
        render_template("diff.html.j2", shown=[])
