"""Charts that fit a light and a dark page: sizes of objects, scores along thresholds."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

_INK = "#7a7a7a"


def size_chart(counts: Mapping[str, int], truth: Mapping[str, int], learned: Mapping[str, int]) -> str:
    """Objects by the power of two of their size in nm3, and those of the truth; an SVG as a data URL.

    What a network learned from is a line: as many objects in all as there are here.
    """
    figure, axes = _axes("nm³", "objects")
    powers = sorted({*map(int, counts), *map(int, truth), *map(int, learned)})
    every = range(powers[0], powers[-1] + 1)
    sides = (
        [("submission", counts, "#0072B2"), ("truth", truth, "#E69F00")]
        if truth
        else [("submission", counts, "#0072B2")]
    )
    width = 0.8 / len(sides)
    for side, (label, objects, colour) in enumerate(sides):
        left = [power - 0.4 + side * width for power in every]
        axes.bar(left, [objects.get(str(p), 0) for p in every], width, align="edge", color=colour, label=label)
    if sum(learned.values()):
        scale = sum(counts.values()) / sum(learned.values())
        heights = [learned.get(str(p), 0) * scale for p in every]
        axes.stairs(
            heights,
            [p - 0.5 for p in [*every, every.stop]],
            color="#009E73",
            linewidth=1.5,
            label="training truth, scaled",
        )
    if len(axes.get_legend_handles_labels()[1]) > 1:
        figure.legend(loc="outside upper left", ncols=3, fontsize="small", labelcolor=_INK, frameon=False)
    ticks = every[:: max(1, -(-len(every) // 5))]
    axes.set_xticks(ticks, [f"{2.0**p:.0e}" for p in ticks])
    axes.yaxis.get_major_locator().set_params(integer=True)
    return _svg(figure)


def threshold_chart(thresholds: Sequence[float], scores: Sequence[float], current: Sequence[float]) -> str:
    """IoU along the threshold, and the thresholds in use; an SVG as a data URL."""
    figure, axes = _axes("threshold", "IoU alone")
    axes.plot(thresholds, scores, color="#0072B2")
    for threshold in current:
        axes.axvline(threshold, color="#E69F00", linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return _svg(figure)


def _axes(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 1.8), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    axes.patch.set_alpha(0)
    axes.tick_params(colors=_INK, labelsize="small")
    for part in axes.spines.values():
        part.set_color(_INK)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    return figure, axes


def _svg(figure: Any) -> str:
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode()
