"""The facts of a build, read from what it left."""

import json
from dataclasses import replace

import pytest

from ensemble.report.facts import FAULT, LIKELY, UNCLAIMED, WRITTEN, gather_facts
from ensemble.report.finished_build import FinishedBuild
from tests.support.built import OUT


def test_facts_are_what_the_check_counted(built):
    said = gather_facts(FinishedBuild.of(OUT), likely={}, registry_address="http://registry").as_plain()
    check = json.loads((OUT / "check.json").read_text())
    mito = check["arrays"]["crop1"]["mito"]
    assert said["cells"]["crop1"]["mito"]["nonzero_voxels"] == mito["nonzero_voxels"]
    assert said["cells"]["crop1"]["mito"]["share"] == mito["nonzero_voxels"] / (70 * 18 * 20)
    assert said["cells"]["crop1"]["pm"]["status"] == "unclaimed"
    assert said["classes"]["mito"]["objects"] == sum(row["mito"]["objects"] for row in check["arrays"].values())
    (route,) = said["classes"]["nuc"]["routes"]
    assert route["crops"] == ("crop1", "crop2")
    assert route["models"]["coarse"]["link"] == "http://registry/#/models/coarse/versions/1"


def test_report_json_is_the_facts_that_were_gathered(built, store):
    written = json.loads((OUT / "report.json").read_text())
    cells = {f"{crop}/{name}": cell for crop, row in written["cells"].items() for name, cell in row.items()}
    likely = {place: p for place, cell in cells.items() if (p := cell["highest_probability"]) is not None}
    facts = gather_facts(FinishedBuild.of(OUT), likely=likely, registry_address=store.address)
    told = json.loads(json.dumps(facts.as_plain()))
    stages = [told["costs"].pop("stages"), written["costs"].pop("stages")]
    assert told == written
    assert stages[0][: len(stages[1])] == stages[1]  # the report's own cost comes after


def test_a_cell_is_what_the_check_says_of_its_array(built):
    build = FinishedBuild.of(OUT)
    empty = replace(build.check.arrays["crop1"]["ecs"], nonzero_voxels=0)
    arrays = {**build.check.arrays, "crop1": {**build.check.arrays["crop1"], "ecs": empty}}
    check = replace(build.check, arrays=arrays, faults=("crop2/mito: is missing",))
    facts = gather_facts(replace(build, check=check), likely={"crop1/ecs": 0.9}, registry_address="")
    cells = facts.cells["crop1"]
    assert [cells[name].status for name in ("mito", "ecs", "pm")] == [WRITTEN, LIKELY, UNCLAIMED]
    assert cells["ecs"].highest_probability == 0.9
    assert (facts.cells["crop2"]["mito"].status, facts.cells["crop2"]["mito"].why) == (FAULT, "crop2/mito: is missing")
    assert "NOT ready: 1 fault to mend" in facts.verdict
    assert facts.with_truth_objects({"mito": 7}).classes["mito"].truth_objects == 7


@pytest.mark.parametrize(
    ("made_for", "verdict"),
    [
        ("the challenge's manifest (413 arrays)", "complete and legal: ready to upload"),
        ("the challenge's manifest of before 2026-06-29 (420 arrays)", "for a manifest that is not the challenge's"),
        ("this manifest (16 arrays)", "complete and legal for a manifest that is not the challenge's"),
    ],
)
def test_only_the_challenges_own_manifest_is_ready_to_upload(built, made_for, verdict):
    build = FinishedBuild.of(OUT)
    facts = gather_facts(replace(build, check=replace(build.check, made_for=made_for)), likely={}, registry_address="")
    assert verdict in facts.verdict
    assert ("ready" in facts.verdict) == ("ready" in verdict)
