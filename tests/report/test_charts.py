"""Charts as drawings that a page can hold."""

import base64
import xml.etree.ElementTree as ET

from ensemble.report.charts import size_chart, threshold_chart


def drawing(url: str) -> ET.Element:
    head, _, content = url.partition(",")
    assert head == "data:image/svg+xml;base64"
    return ET.fromstring(base64.b64decode(content))


def groups(url: str, prefix: str) -> list[str]:
    return [one.get("id") for one in drawing(url).iter() if (one.get("id") or "").startswith(prefix)]


def test_sizes_have_a_bar_for_each_power_on_each_side():
    alone = size_chart({"3": 5, "5": 1}, {}, {})
    beside = size_chart({"3": 5, "5": 1}, {"4": 2}, {"3": 1, "4": 1})
    patches = [len(groups(url, "patch_")) for url in (alone, beside)]
    assert patches[1] - patches[0] >= 3  # three powers of truth, and a line for what was learned
    assert "legend_1" in groups(beside, "legend")
    assert groups(alone, "legend") == []


def test_a_chart_is_the_same_for_the_same_numbers():
    assert size_chart({"3": 5}, {}, {}).split(",")[0] == "data:image/svg+xml;base64"
    lines = groups(threshold_chart([0.1, 0.5, 0.9], [0.2, 0.6, 0.1], [0.5, 0.7]), "line2d_")
    fewer = groups(threshold_chart([0.1, 0.5, 0.9], [0.2, 0.6, 0.1], []), "line2d_")
    assert len(lines) - len(fewer) == 2  # a line for each threshold in use
