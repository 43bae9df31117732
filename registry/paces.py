"""What was measured on this machine, kept beside the registry: how long a unit of work took, how networks run best."""

import math
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.support import read_json, write_json


@dataclass(frozen=True)
class Paces:
    """Values by machine and what was measured, in a file of JSON. What cannot be read there is not known."""

    path: Path

    def seconds(self, what: str) -> float | None:
        """How long it took when it was timed last on this machine; None where it never was."""
        value = self.fact(what)
        if isinstance(value, float) and math.isfinite(value) and value > 0:
            return value
        return None

    def fact(self, what: str) -> Any:
        """What was kept of that last on this machine, which nobody vouches for; None where nothing was."""
        return self._all().get(_here(what))

    def keep(self, what: str, value: Any) -> None:
        """Keep it for the next plan; where the file cannot be written it is not kept."""
        with suppress(OSError):
            write_json(self.path, {**self._all(), _here(what): value})

    def _all(self) -> Mapping[str, Any]:
        try:
            found = read_json(self.path)
        except (OSError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def _here(what: str) -> str:
    return f"{platform.node()}: {what}"
