"""One build, resumable, to a checked and recorded submission."""

from ensemble.build.building import Built, build
from ensemble.build.cleanup import free, leftovers
from ensemble.build.diagnosis import Finding, diagnose
from ensemble.build.earlier import made_from, refuse_to_replace
from ensemble.build.standalone import postprocess
from ensemble.build.workspace import Workspace

__all__ = [
    "Built",
    "Finding",
    "Workspace",
    "build",
    "diagnose",
    "free",
    "leftovers",
    "made_from",
    "postprocess",
    "refuse_to_replace",
]
