"""What can be wrong with what a person gave us, each told in one line that says what to do.

EnsembleError
├── RecipeError        a recipe: unknown key, class, method, source
├── ManifestError      a manifest: column, grid, class
├── CardError          a model card
├── CheckpointError    weights that are unsafe, damaged or of another network
├── RegistryError      a model, version or alias that is not there; a store that does not answer
├── VolumeError        EM, truth or predictions: missing, truncated, off the grid
├── SubmissionError    a submission that is not one
├── TrainingError      a training spec or data that cannot be learned from
└── TrainingStopped    nothing: a training was asked to end, and goes on another time

The command line prints the message and exits with the error's ``exit_code``; nothing else catches them.
"""

import difflib
import struct
import zipfile
from collections.abc import Iterable

from ensemble.support.shown_text import plain_line

EXIT_FAULTS_FOUND = 1
EXIT_WRONG_INPUT = 2
EXIT_STOPPED = 75
"""The same command goes on (EX_TEMPFAIL of sysexits.h)."""
EXIT_INTERRUPTED = 130

NOT_A_ZIP = (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, EOFError)
"""What zipfile raises for bytes that are no zip, or a damaged one."""


class EnsembleError(Exception):
    """A message for the person who can mend it, in one line."""

    exit_code = EXIT_WRONG_INPUT

    def __init__(self, message: str) -> None:
        super().__init__(plain_line(message))


class RecipeError(EnsembleError):
    pass


class ManifestError(EnsembleError):
    pass


class CardError(EnsembleError):
    pass


class CheckpointError(EnsembleError):
    pass


class RegistryError(EnsembleError):
    pass


class VolumeError(EnsembleError):
    pass


class SubmissionError(EnsembleError):
    pass


class TrainingError(EnsembleError):
    pass


class TrainingStopped(EnsembleError):
    exit_code = EXIT_STOPPED


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """``; did you mean 'mito'?`` for the known word most like ``word``, if any other than itself is like it."""
    near = difflib.get_close_matches(str(word), sorted(set(known) - {word}), n=1, cutoff=likeness)
    return f"; did you mean {near[0]!r}?" if near else ""


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'mito'?``, or else the known words."""
    words = sorted(known)
    return nearest(word, words) or (f"; known: {', '.join(words)}" if words else "")
