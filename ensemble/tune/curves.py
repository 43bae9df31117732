"""Threshold-score curves as pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

SHOWN = 6
"""Sources whose curves are drawn: the best."""


def draw_curves(
    name: str, curves: Mapping[str, Sequence[float]], thresholds: Sequence[float], chosen: float, to: Path
) -> None:
    """Score along the threshold, a line for each of the best sources, and where the choice lies."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(
        title=name, xlabel="threshold", ylabel="score on the tuning crops", xlim=(0, 1), ylim=(0, 1)
    )
    best = sorted(curves, key=lambda source: -max(curves[source]))[:SHOWN]
    for source, style in zip(best, ("-", "--", "-.", ":", "-", "--"), strict=False):
        axes.plot(thresholds, curves[source], style, label=source[:60])
    axes.axvline(chosen, color="0.5", linewidth=0.8)
    axes.annotate(f"{chosen:.3g}", (chosen, 0.02), color="0.3")
    axes.legend(fontsize="small")
    figure.savefig(to, dpi=110)
