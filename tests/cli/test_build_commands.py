"""``plan`` and ``build``: what will be done, and what cannot, before anything runs; and the report at the end."""

import argparse
import json
import re
from pathlib import Path

from ensemble.cli import main
from ensemble.cli.build_commands import add_build_commands
from registry.store import Registry
from tests.support import empty_registry, mlflow_server
from tests.support.file_server import served
from tests.support.small_build import BUILD, registered, wrong


def test_em_that_cannot_be_read_in_the_middle_of_a_crop_is_told_by_the_plan(place, capsys) -> None:
    for chunk in (place / "data/d/d.zarr/recon-1/em/fibsem-uint8/s0").glob("[0-9]*"):
        chunk.write_bytes(b"not a chunk")
    assert "fibsem-uint8/s0: chunk 0.0.0 cannot be read" in wrong(capsys, "plan", *BUILD[1:])


def test_the_plan_says_what_the_build_does(place, capsys) -> None:
    assert main(["plan", "small.yaml", "--manifest", "manifest.csv", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    jobs = {(job["source"], crop): job for crop in plan["crops"] for job in plan["crops"][crop]["jobs"]}
    assert set(jobs) == {("fine", "1"), ("fine", "2"), ("coarse", "1"), ("coarse", "2")}
    assert jobs["fine", "1"]["em"] == "EM upsampled"
    assert jobs["fine", "1"]["forward_passes"] == jobs["fine", "1"]["patches"] > 1
    assert plan["crops"]["1"]["classes"]["mito"]["postprocess"][1] == {"drop_small": {"min_size_voxels": 20}}
    assert plan["cost"]["arrays"] == 16
    assert plan["networks"]["fine"].startswith("float32; ")
    assert plan["predictions_found"] == 0 < plan["hours"]["predicting_s"]
    assert main(["plan", "small.yaml", "--manifest", "manifest.csv"]) == 0
    said = capsys.readouterr().out
    assert "mean(3·fine, 1·coarse)" in said
    assert "0 of 4 predictions found, 4 to compute (build/predictions)\nfine runs in float32" in said
    assert re.search(r"^on this machine about \d+ s of predicting", said, re.MULTILINE)
    assert not Path("build").exists()


GIB = 1 << 30


def test_what_cannot_fit_is_told_by_plan_and_build_before_anything_runs(place, capsys) -> None:
    line = wrong(capsys, *BUILD, "--memory", "0.5")
    assert "--memory 0.5" in line
    assert "needs about" in line and "GiB" in line
    assert not Path("build/small/work").exists()
    assert "--memory 0.5" in wrong(capsys, "plan", *BUILD[1:], "--memory", "0.5")


def test_the_plan_says_whether_partial_sums_lie_on_disk(place, capsys) -> None:
    def jobs(*options: str) -> list[dict]:
        assert main(["plan", *BUILD[1:], "--json", *options]) == 0
        plan = json.loads(capsys.readouterr().out)
        return [job for crop in plan["crops"].values() for job in crop["jobs"]]

    roomy = jobs("--memory", "8")
    assert {job["partial_sums"] for job in roomy} == {"in memory"}
    assert all(GIB // 2 < job["peak_memory_bytes"] < 2 * GIB for job in roomy)


def test_the_build_command_makes_the_report_where_it_is_lacking_and_else_leaves_it(built, capsys) -> None:
    commands = argparse.ArgumentParser().add_subparsers()
    add_build_commands(commands)
    arguments = commands.choices["build"].parse_args(BUILD[1:])
    page = built / "build/small/report.html"
    before = page.stat().st_mtime_ns
    assert arguments.run(arguments) == 0
    assert "everything is done already" in capsys.readouterr().err
    assert page.stat().st_mtime_ns == before
    page.unlink()
    assert arguments.run(arguments) == 0
    assert "report: build/small/report.html" in capsys.readouterr().out
    assert page.read_text().startswith("<!doctype html>")


def test_no_password_of_registry_or_data_is_shown_or_kept_in_what_is_handed_on(place, capsys, monkeypatch) -> None:
    with mlflow_server.started(place / "server") as server, served(place / "data") as data:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address.replace("://", "://ann:s3cr3t@"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        registered(Registry())
        request = [*BUILD[1:], "--data", f"http://ann:s3cr3t@{data}", "--crops", "2"]
        for command in (["plan", *request], ["plan", "--json", *request], ["doctor", *request], ["build", *request]):
            assert main(command) == 0
        assert main(["models"]) == 0
        assert main(["report", "build/small--crop2"]) == 0
        said = capsys.readouterr()
        assert f"in {server.address}\n" in said.out
    handed_on = [path for path in Path().rglob("*") if path.is_file() and path.name != "request.json"]
    assert {"report.html", "lock.yaml", "plan.json", "costs.json", "mlflow.db"} <= {path.name for path in handed_on}
    assert "s3cr3t" not in said.out + said.err
    assert [path for path in handed_on if b"s3cr3t" in path.read_bytes()] == []
    assert f"data: http://{data}\n" in Path("build/small--crop2/lock.yaml").read_text()
    assert f"{server.address}/#/models/fine/versions/1" in Path("build/small--crop2/report.html").read_text()


def test_the_doctor_looks_where_the_build_would_lie(place, capsys) -> None:
    said = ["doctor", "small.yaml", "--manifest", "manifest.csv", "--device", "cpu", "--out", "elsewhere/mine"]
    assert main(said) == 0
    assert "free at elsewhere/mine" in capsys.readouterr().out
    empty_registry.store_in(place / "own" / "mlruns")
    assert main(["doctor", "--out", "own"]) == 0
    assert f"nothing is registered in sqlite:///{place}/own/mlruns/mlflow.db" in capsys.readouterr().out
