"""Scores to be read by people: what a class costs comes first. Plain where there is no terminal."""

from collections.abc import Iterable, Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ensemble.scoring import ArrayStatus, MetricSet, Scores
from ensemble.support import counted, printable

_MAX_PLACES = 12


def score_tables(
    scores: Scores, *, which: MetricSet = "official", by_crop: bool = False, against: Scores | None = None
) -> Iterator[RenderableType]:
    """Everything to be printed, in order; ``against`` adds what changed since another submission."""
    if by_crop:
        yield crops(scores)
    yield classes(scores)
    if which == "all":
        yield from more_metrics(scores)
    if against is not None:
        yield changes(scores, against)
    yield from notes(scores)
    yield summary(scores)


def classes(scores: Scores) -> Table:
    """A row per class with anything to show, instance classes first, each kind by what mending it would gain."""
    table = _table("class", "score", "if perfect", "gain", "F1", "distance", "tp", "fp", "fn", title="classes")
    for name in _shown(scores):
        tally, best = scores.tallies[name], scores.if_perfect(name)
        of = scores.of(name, tally)
        table.add_row(
            name,
            _coloured(scores.by_class[name]),
            f"{best:.4f}",
            f"+{best - scores.overall.score:.4f}",
            _number(of.get("f1")),
            _number(of.get("normalized_hausdorff_distance")),
            *(f"{n:,}" for n in (tally.tp, tally.fp, tally.fn)),
        )
    return table


def crops(scores: Scores) -> Table:
    """A row per class and crop: its score if there were this crop alone, and what became of the array."""
    table = _table("class", "crop", "score", "F1", "distance", "tp", "fp", "fn", title="crops")
    table.add_column("status", justify="left")
    for name in _by_gain(scores):
        for crop, arrays in scores.arrays.items():
            if name not in arrays or arrays[name].status == ArrayStatus.NO_TRUTH:
                continue
            array = arrays[name]
            of = scores.of(name, array.tally)
            counts = array.status != ArrayStatus.TOO_MANY
            table.add_row(
                name,
                crop,
                _coloured(of[scores.key(name)]) if counts else "-",
                _number(of.get("f1")) if counts else "-",
                _number(of.get("normalized_hausdorff_distance")) if counts else "-",
                *(f"{n:,}" for n in (array.tally.tp, array.tally.fp, array.tally.fn)),
                array.status.value,
            )
    return table


def more_metrics(scores: Scores) -> Iterator[Table]:
    """What the field measures beside the official scores: a table for instance, one for semantic classes."""
    for kind, wanted in (("instance", True), ("semantic", False)):
        rows = {
            name: scores.metrics_of(name, scores.tallies[name])
            for name in _shown(scores)
            if (name in scores.instance_classes) == wanted
        }
        if rows:
            names = list(next(iter(rows.values())))
            table = _table("class", *(name.replace("_", " ") for name in names), title=f"metrics, {kind} classes")
            for name, row in rows.items():
                table.add_row(name, *(_number(value) for value in row.values()))
            yield table


def changes(scores: Scores, against: Scores) -> Table:
    """A row per class that either submission has, the largest changes first."""
    table = _table("class", "score", "before", "change", title="against the other submission")
    now, before = scores.by_class, against.by_class
    names = sorted({*now, *before}, key=lambda name: -abs(now.get(name, 0) - before.get(name, 0)))
    for name in names:
        table.add_row(name, _number(now.get(name)), _number(before.get(name)), _change(now.get(name), before.get(name)))
    total = scores.overall.score, against.overall.score
    table.add_section()
    table.add_row("overall", *map(_number, total), _change(*total))
    return table


def notes(scores: Scores) -> Iterator[str | Text]:
    """What a person should know of arrays that did not count as they should."""
    said = (
        (ArrayStatus.MISSING, "missing from the submission, and held against it"),
        (ArrayStatus.NO_TRUTH, "without truth, and left out"),
    )
    for status, what in said:
        places = [
            f"{crop}/{name}"
            for crop, arrays in scores.arrays.items()
            for name, array in arrays.items()
            if array.status == status
        ]
        if places:
            yield _note(f"{counted(len(places), 'array is', 'arrays are')} {what}: {_listed(places)}")
    for crop, arrays in scores.arrays.items():
        for name, array in arrays.items():
            if array.status == ArrayStatus.TOO_MANY:
                yield _note(f"{crop}/{name} is left out of its class: {array.why}")

    for crop, sources in scores.leaks.items():
        what = "its scores flatter; judge by crops no model was trained on"
        yield _note(f"leakage: {', '.join(sources)} was trained on {crop}, so {what}")
    nothing = [name for name in scores.tallies if _is_empty(scores, name)]
    if nothing:
        what = "nothing in the truth or the prediction, which counts as 1"
        yield f"{counted(len(nothing), 'class has', 'classes have')} {what}: {' '.join(nothing)}"


def _note(text: str) -> Text:
    return Text(printable(text), style="yellow")


def summary(scores: Scores) -> Text:
    """The overall score and what it is made of, in one line."""
    overall = scores.overall
    return Text.assemble(
        "overall ",
        (f"{overall.score:.4f}", "bold"),
        f" = √(instance {overall.instance:.4f} · semantic {overall.semantic:.4f}), rules {printable(scores.rules)}",
    )


def _by_gain(scores: Scores) -> list[str]:
    """Where the overall score hangs on a kind without any class, by the classes' own scores."""
    return sorted(
        scores.tallies,
        key=lambda name: (name not in scores.instance_classes, -scores.if_perfect(name), scores.by_class[name]),
    )


def _shown(scores: Scores) -> list[str]:
    return [name for name in _by_gain(scores) if not _is_empty(scores, name)]


def _is_empty(scores: Scores, name: str) -> bool:
    """Nothing is anywhere; an array that was left out had something."""
    tally = scores.tallies[name]
    left_out = any(a[name].status == ArrayStatus.TOO_MANY for a in scores.arrays.values() if name in a)
    return not (tally.tp or tally.fp or tally.fn or left_out)


def _table(first: str, *others: str, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="left" if name == "crop" else "right")
    return table


def _listed(places: Iterable[str]) -> str:
    places = list(places)
    more = len(places) - _MAX_PLACES
    return " ".join(places[:_MAX_PLACES]) + (f" and {more} more" if more > 0 else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _coloured(score: float) -> Text:
    style = "red" if score < 0.5 else "yellow" if score < 0.8 else "green"
    return Text(f"{score:.4f}", style=style)


def _change(now: float | None, before: float | None) -> Text:
    if now is None or before is None:
        return Text("-")
    change = now - before
    style = "green" if change > 0 else "red" if change < 0 else ""
    return Text(f"{change:+.4f}", style=style)
