"""The report in a real browser: what it shows, and what a click and a key do."""

import base64
import html
import io
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from ensemble.cli import main
from ensemble.report.facts import gather_facts
from ensemble.report.finished_build import FinishedBuild
from ensemble.report.page import PagePictures, render_page
from tests.support.browser import needs_chromium
from tests.support.built import OUT
from tests.support.small_build import BUILD, edit


def test_a_page_without_pictures_holds_every_array_and_nothing_to_fetch(built):
    facts = gather_facts(FinishedBuild.of(OUT), likely={}, registry_address="")
    page = render_page(facts, PagePictures())
    places = re.findall(r'data-place="(\w+/\w+)"', page)
    assert sorted(places) == sorted(f"{crop}/{name}" for crop, row in facts.cells.items() for name in row)
    assert facts.verdict in html.unescape(page)
    assert "<script data-pictures" not in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)


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


@needs_chromium
def test_a_cell_without_pictures_says_so_without_empty_frames(built, browser):
    browser.goto((OUT / "report.html").resolve().as_uri())
    browser.click('[data-place="crop1/pm"]')
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
