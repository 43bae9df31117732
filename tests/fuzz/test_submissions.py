"""Spoilt submissions are checked to a report, or refused in one line."""

import io
import random
import zipfile
from pathlib import Path

from ensemble.submission.checking import check
from tests.fuzz.mutations import spoilt_bytes, spoilt_json
from tests.fuzz.running import outcomes
from tests.support.small_submission import TARGETS, write, zipped


def spoilt(rng: random.Random, members: dict[str, bytes], whole: bytes) -> bytes:
    """The zip's own bytes, or a good zip of one or two spoilt members."""
    if rng.random() < 0.3:
        return spoilt_bytes(rng, whole)
    changed = dict(members)
    for name in rng.sample(sorted(members), rng.randint(1, 2)):
        is_json = rng.random() < 0.9 and name.rpartition("/")[2].startswith(".z")
        changed[name] = (spoilt_json if is_json else spoilt_bytes)(rng, members[name])
    buffer = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in changed.items():
            file.writestr(name, data)
    return spoilt_bytes(rng, buffer.getvalue()) if rng.random() < 0.2 else buffer.getvalue()


def test_a_submission_is_checked_or_refused(tmp_path: Path) -> None:
    path = zipped(write(tmp_path / "s", attributes={"consistency": "joint", "unclaimed": {"crop984": ["nuc"]}}))
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}

    def run(rng: random.Random) -> None:
        path.write_bytes(spoilt(rng, members, whole))
        found = check(path, TARGETS)
        assert all("\n" not in line for line in (*found.faults, *found.warnings))

    counts = outcomes(150, run)
    assert counts["refused"] > 0
    assert counts["read"] > 0
