"""The viewer's state: every class where it lies."""

import json
import re
import signal
import urllib.request

import pytest

from ensemble.report.viewer import open_viewer
from ensemble.support.errors import EnsembleError
from registry.store import Registry
from tests.support.built import OUT
from tests.support.command import ensemble
from tests.support.processes import NEVER_S


def test_the_viewer_serves_every_class_where_it_lies(built):
    pytest.importorskip("neuroglancer", reason="neuroglancer is not installed")
    process = ensemble("view", str(OUT), "--crop", "1", "--classes", "mito,ecs")
    try:
        link = re.search(r"http://\S+", process.stdout.readline())
        assert link, process.ended()[1]
        assert b"neuroglancer" in urllib.request.urlopen(link[0], timeout=NEVER_S).read().lower()
    finally:
        process.send(signal.SIGKILL)
        process.ended()
    state = json.loads((OUT / "neuroglancer.json").read_text())
    assert [layer["name"] for layer in state["layers"]] == [
        *("EM", "mito", "mito probability", "ecs", "ecs probability"),
    ]
    (source,) = state["layers"][1]["source"]
    moved = [row[3] for row in source["transform"]["matrix"]]
    assert moved == [5.0, 20.0, 20.0]  # corners at 20, 80, 80 nm, in voxels of 4 nm
    with pytest.raises(EnsembleError, match="9: not in this build"):
        open_viewer(OUT, Registry(), crop="9")
