"""What a build came to, for people."""

from ensemble.report.array_changes import Difference
from ensemble.report.difference import diff
from ensemble.report.report import REPORT_FACTS, REPORT_PAGE, make_report
from ensemble.report.viewer import open_viewer

__all__ = [
    "REPORT_FACTS",
    "REPORT_PAGE",
    "Difference",
    "diff",
    "make_report",
    "open_viewer",
]
