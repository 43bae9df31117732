"""Which manifest a submission was made for."""

from collections.abc import Sequence

from ensemble.core import Target, official_departure, official_manifest
from ensemble.submission.reader import Submission
from ensemble.support import counted

CHALLENGE_MANIFEST = "the challenge's manifest"
"""As people call the one in force."""


def made_for(submission: Submission, targets: Sequence[Target]) -> str:
    """The manifest that asks for the very arrays it holds, in words; else how they differ from ``targets``."""
    held = {
        f"{crop}/{name}"
        for crop in submission.crops
        for name in submission.names(crop)
        if submission.is_dataset(crop, name)
    }
    asked, departure = _places(targets), official_departure()
    known = {
        CHALLENGE_MANIFEST: _places(official_manifest()),
        f"{CHALLENGE_MANIFEST} of before {departure.day}": _places(official_manifest()) | departure.places,
        "this manifest": asked,
    }
    for name, places in known.items():
        if held == places:
            return f"{name} ({counted(len(places), 'array')})"
    if held < asked:
        return f"a part of this manifest: {len(held)} of {counted(len(asked), 'array')}"
    others = f" and {counted(len(held - asked), 'other')}" if held - asked else ""
    return f"another manifest: it holds {len(held & asked)} of the {counted(len(asked), 'array')} of this one{others}"


def _places(targets: Sequence[Target]) -> frozenset[str]:
    return frozenset(place for target in targets for place in target.places)
