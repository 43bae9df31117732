"""The difference of two builds, or two zips."""

import json
import shutil
from pathlib import Path

from ensemble.cli import main
from ensemble.report.difference import diff
from tests.support.built import OUT
from tests.support.small_build import edit


def test_zips_are_compared_without_their_builds(built, capsys):
    shutil.copy(OUT / "submission.zip", "a.zip")
    assert main(["diff", "a.zip", str(OUT / "submission.zip"), "--page", "d.html"]) == 0
    assert "no voxel differs" in capsys.readouterr().out


def test_two_builds_differ_where_a_threshold_moved(built, capsys):
    edit("small.yaml", "name: small", "name: other")
    edit("small.yaml", "ecs: {source: theirs}", "ecs: {source: theirs, threshold: 0.9}")
    assert main(["build", "small.yaml", "--manifest", "manifest.csv", "--out", "build/other"]) == 0
    capsys.readouterr()
    assert main(["diff", str(OUT), "build/other", "--page", "diff.html"]) == 0
    said = capsys.readouterr().out
    assert "ecs" in said
    changes = diff(OUT, Path("build/other")).by_class()
    assert changes["ecs"].only_a > 0
    before, after = (json.loads(Path(d, "check.json").read_text())["arrays"] for d in (OUT, "build/other"))
    for name in ("ecs", "mito", "nuc"):
        counted = [sum(row[name]["nonzero_voxels"] for row in side.values()) for side in (before, after)]
        assert counted == [changes[name].both + changes[name].only_a, changes[name].both + changes[name].only_b]
    assert "data:image/webp" in Path("diff.html").read_text()
    assert main(["diff", str(OUT), str(OUT)]) == 0
    assert "no voxel differs" in capsys.readouterr().out
    assert main(["diff", str(OUT), "nothing.zip"]) == 2
