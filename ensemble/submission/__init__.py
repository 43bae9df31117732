"""The zip: written by us, read without trusting anyone, checked."""

from ensemble.submission.check_report import (
    GENEROUS_TRUTH_OBJECTS,
    NOTABLE_CHANGE,
    ArrayContents,
    ArrayPlace,
    BrokenRelation,
    CheckReport,
)
from ensemble.submission.checking import check
from ensemble.submission.reader import Submission, submission_at
from ensemble.submission.stored_array import ChunkIndex, StoredArray
from ensemble.submission.writer import create_array, pack, write_group_files

__all__ = [
    "GENEROUS_TRUTH_OBJECTS",
    "NOTABLE_CHANGE",
    "ArrayContents",
    "ArrayPlace",
    "BrokenRelation",
    "CheckReport",
    "ChunkIndex",
    "StoredArray",
    "Submission",
    "check",
    "create_array",
    "pack",
    "submission_at",
    "write_group_files",
]
