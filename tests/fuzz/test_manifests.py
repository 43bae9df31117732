"""Spoilt manifests are read or refused in one line, and what is read can be planned."""

import csv
import io
import random
from pathlib import Path

from ensemble.core import manifest
from ensemble.core.manifest import official_manifest
from tests.fuzz.mutations import ODD, spoilt_bytes
from tests.fuzz.running import outcomes

QUOTING = (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONE)


def spoilt(rng: random.Random, good: str) -> bytes:
    rows = [line.split(",") for line in good.splitlines()]
    for _ in range(rng.randint(0, 3)):
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = str(rng.choice(ODD))
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=rng.choice(",;\t"), quoting=rng.choice(QUOTING), escapechar="\\").writerows(rows)
    text = buffer.getvalue().encode()
    return spoilt_bytes(rng, text) if rng.random() < 0.5 else text


def test_a_manifest_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    manifest.write_manifest(path, official_manifest()[7:10])
    good = path.read_text()

    def run(rng: random.Random) -> None:
        path.write_bytes(spoilt(rng, good))
        for target in manifest.load_manifest(path):
            assert target.grid.size > 0

    counts = outcomes(300, run)
    assert counts["refused"] > 0
    assert counts["read"] > 0
