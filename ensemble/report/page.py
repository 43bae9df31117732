"""The page: facts and pictures in one file that needs nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ensemble.report.closeups import ChangeCloseUp, ObjectCloseUp
from ensemble.report.facts import STATUSES, ReportFacts
from ensemble.report.templating import render_template
from ensemble.report.views import View

RELATIONS = 12
"""So many of the relations that are broken are shown at once."""

SIGNS = {"written": "●", "empty": "○", "likely": "▲", "unclaimed": "–", "fault": "✕"}


@dataclass(frozen=True)
class PagePictures:
    """What the page shows beside facts; charts and curves are data URLs.

    ``views``: "crop557/mito" -> slices of it; ``charts``: class -> sizes of its objects; ``changes``: where joint
    decoding changed a class most. Where truth was given, ``curves``: class -> its score along the threshold, and
    ``objects`` worth a look.
    """

    views: Mapping[str, Sequence[View]] = field(default_factory=dict)
    charts: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, str] = field(default_factory=dict)
    objects: Sequence[ObjectCloseUp] = ()
    changes: Sequence[ChangeCloseUp] = ()


def render_page(facts: ReportFacts, pictures: PagePictures) -> str:
    """The whole page."""
    views = {
        place: [
            {"axis": v.axis, "position": v.position, "where": v.where, "busiest": v.busiest, **v.layers} for v in views
        ]
        for place, views in pictures.views.items()
    }
    return render_template(
        "page.html.j2",
        facts=facts,
        cells=facts.as_plain()["cells"],
        pictures=views,
        charts=pictures.charts,
        curves=pictures.curves,
        judged=pictures.objects,
        changed=pictures.changes,
        signs=SIGNS,
        statuses=STATUSES,
        RELATIONS=RELATIONS,
    )
