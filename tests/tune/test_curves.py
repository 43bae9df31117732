"""Threshold-score curves as pictures."""

from PIL import Image

from ensemble.tune.curves import SHOWN, draw_curves


def test_the_best_sources_are_drawn_and_the_choice_is_marked(tmp_path):
    thresholds = [k / 10 for k in range(1, 10)]
    curves = {f"source {k}": [k / 20] * 9 for k in range(SHOWN + 3)}
    draw_curves("er", curves, thresholds, 0.5, tmp_path / "er.png")
    worse = {name: curve for name, curve in curves.items() if curve[0] >= 3 / 20}
    draw_curves("er", worse, thresholds, 0.5, tmp_path / "best.png")
    draw_curves("er", curves, thresholds, 0.7, tmp_path / "moved.png")
    pixels = {name: Image.open(tmp_path / f"{name}.png").convert("RGB").tobytes() for name in ("er", "best", "moved")}
    assert Image.open(tmp_path / "er.png").size == (660, 440)
    assert pixels["er"] == pixels["best"]  # those that are not among the best leave no trace
    assert pixels["er"] != pixels["moved"]
