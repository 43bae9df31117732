"""Scores as a person reads them."""

from ensemble.cli.score_tables import summary
from tests.support import small_submission as small
from tests.support.scored_submission import scored, shown, write_truth


def test_the_table_puts_what_gains_most_first_and_is_plain_in_a_pipe(submission, truth):
    masks = small.good()
    masks["nuc"][:] = 0
    masks["ecs"][0] = 0
    masks["mito_lum"][:] = 0
    text = shown(scored(small.write(submission, masks), truth), by_crop=True, which="all")
    assert "\x1b" not in text
    rows = [line.split()[1] for line in text.partition("metrics")[0].splitlines() if line.startswith("│")]
    assert rows[-5:] == ["nuc", "mito", "mito_lum", "ecs", "mito_mem"]
    assert "empty truth" in text
    assert text.rstrip().endswith("rules 2026-06")


def test_classes_with_nothing_anywhere_are_told_in_a_line(submission, tmp_path):
    masks = small.good()
    masks["nuc"][:] = masks["ecs"][:] = 0
    truth = write_truth(tmp_path / "truth.zarr", masks)
    text = shown(scored(small.write(submission, masks), truth))
    assert "2 classes have nothing in the truth or the prediction, which counts as 1: nuc ecs" in text
    assert "│ nuc" not in text


def test_against_another_submission_shows_what_changed(submission, truth):
    before = scored(submission, truth)
    masks = small.good()
    masks["nuc"][:] = 0
    text = shown(scored(small.write(submission, masks), truth), against=before)
    changes = text.partition("against the other submission")[2]
    (nuc,) = (line for line in changes.splitlines() if line.startswith("│ nuc"))
    assert nuc.replace("│", " ").split() == ["nuc", "0.0000", "1.0000", "-1.0000"]
    assert "-0.2929" in changes  # overall: √(1/2) - 1


def test_the_last_line_says_what_the_score_is_made_of(submission, truth):
    masks = small.good()
    masks["nuc"][:] = 0
    said = summary(scored(small.write(submission, masks), truth)).plain
    assert said == "overall 0.7071 = √(instance 0.5000 · semantic 1.0000), rules 2026-06"
