"""The report of a build in a real browser, the difference of two builds, and the viewer's state."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from conftest import furnish
from mlflow import MlflowClient
from PIL import Image
from small_build import BUILD, edit
from volumes import write_array

from ensemble.cli import main
from ensemble.core import manifest
from ensemble.decode.mixing import Probability
from ensemble.decode.tile_decoding import TILE_SHAPE
from ensemble.plan.request import Request, prepare
from ensemble.predict.predictor import Predictor
from ensemble.report import closeups, facts
from ensemble.report.difference import diff
from ensemble.report.viewer import open_viewer
from ensemble.submission.reader import Submission
from ensemble.support.errors import EnsembleError
from ensemble.support.progress import QuietProgress
from registry.store import Registry

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
OUT = Path("build/small")
ALONE = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, store: Registry) -> Path:
    """The small build, with truth for one class; made once."""
    folder = furnish(tmp_path_factory.mktemp("built"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
        patched.chdir(folder)
        assert main(BUILD) == 0
    for target in manifest.load_manifest(folder / "manifest.csv"):
        write_array(folder / "truth.zarr" / target.group / "mito", np.ones(target.grid.shape, np.uint8), target.grid)
    return folder


@pytest.fixture
def built(once: Path, store: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for each test; the working directory."""
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def browser():
    """A page of a headless Chromium; what it says on its console is kept."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ALONE)
        view = running.new_page(viewport={"width": 1280, "height": 900})
        view.said = []
        view.on("console", lambda message: view.said.append(message.text))
        view.on("pageerror", lambda error: view.said.append(str(error)))
        yield view
        running.close()


@needs_chromium
def test_a_build_ends_with_a_page_that_shows_what_the_check_counted(built, browser):
    browser.goto((OUT / "report.html").resolve().as_uri())
    check = json.loads((OUT / "check.json").read_text())
    said = json.loads((OUT / "report.json").read_text())
    assert said["classes"]["mito"]["training_sizes_log2_nm3"] == {"12": 3, "15": 1}
    cells = browser.query_selector_all("#grid button")
    assert len(cells) == sum(len(row) for row in check["arrays"].values())
    for crop, row in check["arrays"].items():
        for name, counts in row.items():
            assert said["cells"][crop][name]["nonzero_voxels"] == counts["nonzero_voxels"]
            assert said["cells"][crop][name].get("objects") == counts.get("objects")
    button = browser.query_selector('[data-place="crop1/mito"]')
    assert f"{check['arrays']['crop1']['mito']['objects']:,} objects" in button.get_attribute("title")
    assert browser.inner_text("#verdict").startswith(f"{len(cells)} arrays of 2 crops, complete and legal")
    assert browser.said == []


@needs_chromium
def test_a_click_shows_the_arrays_pictures_and_keys_move(built, browser):
    browser.goto((OUT / "report.html").resolve().as_uri())
    browser.click('[data-place="crop1/mito"]')
    assert browser.inner_text("#cell h3") == "crop1/mito"
    shown = {image.get_attribute("data-layer"): image for image in browser.query_selector_all("#cell img")}
    stored = _stored(browser, "crop1/mito")
    (z,) = [view for view in stored if view["axis"] == "z" and view["busiest"]]
    for layer in ("em", "mask", "probability", "spread"):  # mito is a mix, so its members can disagree
        assert shown[layer].get_attribute("src") == z[layer]
        assert shown[layer].evaluate("image => image.naturalWidth") > 0
    browser.click('[data-axis="x"]')
    along_x = [view for view in stored if view["axis"] == "x"]
    assert len(along_x) == 3
    browser.focus("#slider")
    browser.keyboard.press("Home")
    assert shown["mask"].get_attribute("src") == along_x[0]["mask"]
    assert browser.inner_text("#position") == along_x[0]["where"]
    assert along_x[0]["where"].startswith(f"x {along_x[0]['position']} of ")
    browser.focus('[data-place="crop1/mito"]')
    browser.keyboard.press("ArrowDown")
    browser.keyboard.press("Enter")
    assert browser.inner_text("#cell h3") == "crop2/mito"
    assert browser.said == []


@needs_chromium
def test_what_deciding_together_changed_is_told_before_and_after_and_pictured_where_most(built, browser):
    browser.goto((OUT / "report.html").resolve().as_uri())
    check = json.loads((OUT / "check.json").read_text())
    before = sum(check["violations_before"].values())
    assert before > 0 == sum(check["violations"].values())
    assert f"each class alone {before:,} voxels would" in browser.inner_text("#contradictions")
    told = [row.inner_text().split("\t") for row in browser.query_selector_all("#contradictions + table tbody tr")]
    assert told == [[w, f"{n['before']:,}", f"{n['written']:,}"] for w, n in check["relations"].items()]
    changed = {name: row for name, row in check["decoding"].items() if row["removed"] + row["added"]}
    by_size = sorted(changed, key=lambda name: -(changed[name]["removed"] + changed[name]["added"]))
    figures = browser.query_selector_all("#changes figure")
    places = [f"{changed[name]['most_changed']['crop']}/{name}" for name in by_size]
    assert [figure.get_attribute("data-change") for figure in figures] == places
    for figure, name in zip(figures, by_size, strict=True):
        assert f"{changed[name]['most_changed']['voxels']:,} voxels changed" in figure.inner_text()
        assert all(image.evaluate("image => image.naturalWidth") > 0 for image in figure.query_selector_all("img"))
    assert browser.said == []


def test_the_picture_of_a_change_is_of_the_plane_that_changed_most(built):
    build, check = facts.FinishedBuild.of(OUT), json.loads((OUT / "check.json").read_text())
    said = json.loads((OUT / "report.json").read_text())
    request = Request.again(OUT)
    prepared = prepare(request, Registry())
    crops = {crop.target.crop: crop for crop in prepared.plan.crops}
    predicting = Predictor(request, prepared, Registry(), QuietProgress())
    fields = {name: predicting.fields(crop) for name, crop in crops.items()}
    with Submission.open(OUT / "submission.zip") as submission:
        for shown in closeups.changes(build, said, submission, crops, fields):
            (group, name), most = shown["place"].split("/"), check["decoding"][shown["name"]]["most_changed"]
            target = crops[group.removeprefix("crop")].target
            tile = target.grid.clip(tuple(slice(a, a + n) for a, n in zip(most["at_voxels"], TILE_SHAPE, strict=True)))
            p = Probability(crops[target.crop], fields[target.crop]).of(name, tile)
            differs = (p > shown["threshold"]) != (submission.read(group, name, tile) > 0)
            assert np.count_nonzero(differs) == pytest.approx(most["voxels"], rel=0.02)  # a filter gives some back
            assert shown["z"] == tile[0].start + differs.sum(axis=(1, 2)).argmax()


@needs_chromium
def test_what_is_empty_against_its_probability_is_named_first_and_shown_where_that_is_highest(built, browser):
    edit("small.yaml", "consistency: joint", "consistency: none")
    dropped = "ecs: {source: theirs, postprocess: [{drop_small: {min_size_nm3: 1.0e12}}]}"
    edit("small.yaml", "ecs: {source: theirs}", dropped)
    assert main(BUILD) == 0
    said = json.loads((OUT / "report.json").read_text())
    cells = {f"{crop}/{name}": cell for crop, row in said["cells"].items() for name, cell in row.items()}
    likely = {place for place, cell in cells.items() if cell["status"] == "likely"}
    assert likely >= {"crop1/ecs", "crop2/ecs"}
    assert all(cells[place]["highest_probability"] > 0.5 for place in likely)
    browser.goto((OUT / "report.html").resolve().as_uri())
    assert f"but {len(likely)} look wrongly empty" in browser.inner_text("#verdict")
    assert browser.inner_text("#cell h3") in likely  # chosen from the start
    links = browser.query_selector_all("[data-go]")
    assert {link.inner_text() for link in links} == likely
    links[-1].click()
    place = browser.inner_text("#cell h3")
    assert place == links[-1].inner_text()
    (z,) = [view for view in _stored(browser, place) if view["axis"] == "z" and view["busiest"]]
    assert browser.query_selector('#cell img[data-layer="probability"]').get_attribute("src") == z["probability"]
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(z["probability"].split(",")[1]))).convert("L"))
    assert grey.max() > 127
    assert browser.said == []


@needs_chromium
def test_a_choice_brings_the_pictures_into_sight_and_stays_in_it(built, browser):
    browser.set_viewport_size({"width": 1024, "height": 560})
    browser.goto((OUT / "report.html").resolve().as_uri())
    measure = "one => one.getBoundingClientRect().top"
    before = browser.query_selector("#cell").evaluate(measure)
    browser.click('[data-place="crop2/mito"]')
    assert browser.query_selector("#cell").evaluate(measure) < before - 50
    assert browser.query_selector('[data-place="crop2/mito"]').evaluate(measure) >= 0


def test_a_recipe_that_changed_since_the_build_is_not_shown_as_what_was_built(built, capsys):
    edit("small.yaml", "threshold: 0.5", "threshold: 0.6")
    request = json.loads((OUT / "work" / "request.json").read_text())
    request["recipe"] = str(Path("small.yaml").resolve())
    (OUT / "work" / "request.json").write_text(json.dumps(request))
    assert main(["report", str(OUT)]) == 0
    assert "recipe or manifest have changed since the build (crop 1); build again" in capsys.readouterr().err
    assert "Without probabilities" in (OUT / "report.html").read_text()


def test_a_damaged_array_is_a_fault_on_the_page_not_the_end_of_it(built, capsys):
    chunk = next((OUT / "work/submission.zarr/crop1/ecs").glob("0*"))
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    for name in ("submission.zip", "report.html", "check.json"):
        (OUT / name).unlink()
    assert main(BUILD) == 1
    assert "crop1/ecs: chunk" in capsys.readouterr().out
    assert "NOT ready: 1 fault to mend" in (OUT / "report.html").read_text()


@pytest.mark.parametrize("text", ["{", '{"faults": []}'])
def test_a_damaged_check_is_one_line_and_made_anew_by_the_next_build(built, capsys, text):
    known = (OUT / "check.json").read_text()
    (OUT / "check.json").write_text(text)
    assert main(["report", str(OUT)]) == 2
    assert str(OUT) in capsys.readouterr().err
    assert main(BUILD) == 0
    assert (OUT / "check.json").read_text() == known


@pytest.mark.parametrize("text", ["[1]", '{"run_id": 5}'])
def test_a_report_needs_no_run(built, text):
    (OUT / "work" / "state.json").write_text(text)
    assert main(["report", str(OUT)]) == 0


@needs_chromium
def test_a_cell_without_pictures_says_so_without_empty_frames(built, browser):
    browser.goto((OUT / "report.html").resolve().as_uri())
    browser.click('[data-place="crop1/perox"]')
    assert "there are no pictures of it" in browser.inner_text("#cellsaid")
    assert not any(figure.is_visible() for figure in browser.query_selector_all("#cell figure"))
    assert browser.said == []


def _stored(browser, place: str) -> list[dict]:
    return json.loads(browser.query_selector(f'script[data-pictures="{place}"]').text_content())


@needs_chromium
def test_the_official_manifest_has_a_cell_for_every_array(place, browser):
    Path("zeros.yaml").write_text("name: zeros\ndefaults: {source: empty}\n")
    assert main(["build", "zeros.yaml"]) == 0
    browser.goto(Path("build/zeros/report.html").resolve().as_uri())
    assert len(browser.query_selector_all("#grid button")) == 413
    assert len(browser.query_selector_all("#grid tbody tr")) == 16
    assert "413 are zeros on purpose" in browser.inner_text("#verdict")
    assert browser.said == []


def test_truth_adds_scores_and_the_page_opens_from_disk_alone(built, store, capsys):
    assert main(["report", str(OUT), "--truth", "truth.zarr"]) == 0
    text = (OUT / "report.html").read_text()
    scores = json.loads((OUT / "scores.json").read_text())
    assert f"Overall score {scores['overall_score']:.4f}" in text
    run = MlflowClient(store.tracking_uri).get_run(json.loads((OUT / "work" / "state.json").read_text())["run_id"])
    assert run.data.metrics["overall_score"] == scores["overall_score"]
    logged = MlflowClient(store.tracking_uri).download_artifacts(run.info.run_id, "report.html")
    assert Path(logged).read_text() == text
    assert "<strong>worst</strong> crop" in text
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)  # nothing is fetched
    assert "report.json" in capsys.readouterr().out
    # without the models the page is made all the same
    shutil.rmtree("build/small/work")
    assert main(["report", str(OUT)]) == 0
    assert "without probabilities" in capsys.readouterr().err


def test_predictions_that_were_cleaned_away_are_not_shown_as_zeros(built, capsys):
    shutil.rmtree(OUT / "work" / "predictions")
    assert main(["report", str(OUT)]) == 0
    assert "is not there any more; build again" in capsys.readouterr().err
    assert "Without probabilities" in (OUT / "report.html").read_text()
    assert '"probability"' not in (OUT / "report.html").read_text().partition("data-pictures=")[2]
    assert not list((OUT / "work").glob("predictions/*"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "manifest.csv"],
        ["view", "manifest.csv"],
        ["diff", "manifest.csv", "build/small"],
        ["diff", "build/small", "build/small", "--page", "."],
    ],
)
def test_wrong_places_are_one_line(built, capsys, arguments):
    capsys.readouterr()
    assert main(arguments) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ensemble: ")]
    assert len(said) == 1


def test_em_that_is_not_there_any_more_is_told_on_the_page(built):
    edit(OUT / "work" / "request.json", '/data"', '/elsewhere"')
    assert main(["report", str(OUT)]) == 0
    assert "Without EM of d: it is not under" in (OUT / "report.html").read_text()


def test_zips_are_compared_without_their_builds(built, capsys):
    shutil.copy(OUT / "submission.zip", "a.zip")
    assert main(["diff", "a.zip", str(OUT / "submission.zip"), "--page", "d.html"]) == 0
    assert "no voxel differs" in capsys.readouterr().out


def test_a_folder_without_a_build_is_told(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert f"{tmp_path}: holds no finished build; run ensemble build" in capsys.readouterr().err


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


def test_the_viewer_serves_every_class_where_it_lies(built):
    pytest.importorskip("neuroglancer", reason="neuroglancer is not installed")
    command = [sys.executable, "-m", "ensemble.cli", "view", str(OUT), "--crop", "1", "--classes", "mito,ecs"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**_environment()})
    try:
        link = re.search(r"http://\S+", process.stdout.readline())[0]
        assert b"neuroglancer" in urllib.request.urlopen(link, timeout=20).read().lower()
    finally:
        process.kill()
        process.wait()
    state = json.loads((OUT / "neuroglancer.json").read_text())
    assert [layer["name"] for layer in state["layers"]] == [
        *("EM", "mito", "mito probability", "ecs", "ecs probability"),
    ]
    (source,) = state["layers"][1]["source"]
    moved = [row[3] for row in source["transform"]["matrix"]]
    assert moved == [5.0, 20.0, 20.0]  # corners at 20, 80, 80 nm, in voxels of 4 nm
    with pytest.raises(EnsembleError, match="9: not in this build"):
        open_viewer(OUT, Registry(), crop="9")


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}
