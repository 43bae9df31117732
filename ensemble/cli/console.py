"""What people see on a terminal: progress, plans, models, reports; plain when piped."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ensemble.cli.plan_tables import size_in_words
from ensemble.support import counted, plain_line, printable, without_credentials

if TYPE_CHECKING:
    from ensemble.build import Finding
    from ensemble.report import Difference
    from ensemble.submission import CheckReport
    from ensemble.tune import Soup, Tuned
    from registry import Comparison, ModelVersion, Verification

_PIPE_COLUMNS = 240
_RELATIONS = 10
"""So many ways of contradicting are printed."""


class _PlainConsole(Console):
    """Shows every text, also that of a table's cell, as it is: nothing in it is markup, obeyed, a break or a secret."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(without_credentials(text)), **options)


_OUT = _PlainConsole()
ERRORS = _PlainConsole(stderr=True)
if not _OUT.is_terminal:
    _OUT = _PlainConsole(width=_PIPE_COLUMNS)


def line(text: str) -> None:
    _OUT.print(text)


def note(text: str) -> None:
    """A line beside the result, on stderr."""
    ERRORS.print(text)


def report(found: "CheckReport") -> None:
    """What a check found: faults and warnings by name, then what the arrays hold, in words."""
    for text in found.faults:
        _OUT.print(f"fault: {text}", style="red")
    warnings(found.warnings)
    arrays = sum(len(classes) for classes in found.arrays.values())
    if found.empty:
        line(f"empty: {_by_crop(found.empty)}")
    changed = {name: row for name, row in found.decoding.items() if row.removed or row.added}
    if changed:
        table = Table("class", "alone (voxels)", "removed", "added", title="joint decoding", title_justify="left")
        for name, row in changed.items():
            table.add_row(name, f"{row.alone:,}", _share(row.removed, row.alone), _share(row.added, row.alone))
        _OUT.print(table)
    if found.relations:
        _OUT.print(_contradictions(found))
    verdict = counted(len(found.faults), "fault") if found.faults else "no fault"
    looks = f"{counted(len(found.warnings), 'warning')}, {counted(len(found.empty), 'empty array')}"
    line(f"made for {found.made_for}")
    line(f"{counted(arrays, 'array')} checked: {verdict}, {looks}")


def finding(found: "Finding") -> None:
    """One line of the doctor's."""
    styles = {"good": "green", "look": "yellow", "wrong": "red"}
    _OUT.print(f"{found.state:<6}{found.about}: {plain_line(found.text)}", style=styles[found.state])


def warnings(lines: Iterable[str]) -> None:
    for text in map(plain_line, lines):
        _OUT.print(f"warning: {text}", style="yellow")


def _contradictions(found: "CheckReport") -> Table:
    """The most frequent ways in which voxels contradict themselves, before joint decoding where that is known."""
    columns = {"each class alone": "before"} if found.violations_before else {}
    columns["as written"] = "written"
    table = Table("what contradicts (voxels)", *columns, title="contradictions", title_justify="left")
    for words, voxels in list(found.relations.items())[:_RELATIONS]:
        table.add_row(words, *(f"{getattr(voxels, key):,}" for key in columns.values()))
    if len(found.relations) > _RELATIONS:
        table.add_row(f"… {len(found.relations) - _RELATIONS} more: --json")
    totals = {"before": sum(found.violations_before.values()), "written": sum(found.violations.values())}
    table.add_section()
    table.add_row("voxels in all", *(f"{totals[key]:,}" for key in columns.values()))
    return table


def _by_crop(places: Sequence[str]) -> str:
    crops: dict[str, list[str]] = {}
    for place in places:
        crop, name = place.split("/", 1)
        crops.setdefault(crop, []).append(name)
    return "; ".join(f"{crop}: {' '.join(names)}" for crop, names in crops.items())


def _share(voxels: int, of: int) -> str:
    return f"{voxels:,} ({voxels / of:.1%})" if of else f"{voxels:,}"


def show(items: Iterable[RenderableType]) -> None:
    """Tables and lines, one below the other."""
    for item in items:
        _OUT.print(item)


def models(versions: "Sequence[ModelVersion]", where: str) -> None:
    """What is registered."""
    if not versions:
        line(f"nothing is registered yet in {where}; use ensemble register CHECKPOINT --card CARD.yaml")
        return
    table = Table("model", "version", "aliases", "network", "voxel nm", "classes", "validation IoU")
    for version in versions:
        card = version.card
        sizes = [f"{v:g}" for v in card.voxel_size_nm]
        table.add_row(
            version.name,
            str(version.version),
            "retired" if version.retired else " ".join(version.aliases),
            card.architecture,
            sizes[0] if len(set(sizes)) == 1 else "x".join(sizes),
            " ".join(name or "-" for name in card.classes),
            " ".join(f"{name} {score:.2f}" for name, score in card.validation.items()),
        )
    _OUT.print(table)


def broken(lines: Iterable[str]) -> None:
    """Versions whose files are not what was registered."""
    for text in lines:
        line(f"broken: {text}")


def history(versions: "Sequence[ModelVersion]", moves: Sequence[str]) -> None:
    """Where each version comes from, why some were retired, and when aliases moved."""
    for version in versions:
        card = version.card
        parents = [f"fine-tuned from {card.fine_tuned_from}"] if card.fine_tuned_from else []
        parents += [f"merged from {', '.join(card.merged_from)}"] if card.merged_from else []
        parents += [f"trained on crops {', '.join(card.trained_on)}"] if card.trained_on else []
        parents += [f"retired: {version.retired}"] if version.retired else []
        line(f"version {version.version}, {version.created:%Y-%m-%d %H:%M}, sha256 {version.sha256[:12]}…")
        for text in parents:
            line(f"  {text}")
    for text in moves:
        line(text)


def verified(verifications: "Sequence[Verification]") -> None:
    """How far each model's answer is from the one it was registered with."""
    for replay in verifications:
        verdict = "the same network" if replay.holds else "NOT the same answer: check devices and library versions"
        line(
            f"{replay.version.uri} on {replay.device}: largest deviation {replay.largest:.2g}, mean {replay.mean:.2g}"
            f" in probability: {verdict}"
        )


def compared(comparison: "Comparison") -> None:
    """What two models say of themselves, where they differ, and their scores."""
    table = Table("", comparison.a.uri, comparison.b.uri)
    for key, values in comparison.differences.items():
        table.add_row(key, *values)
    for name, scores in comparison.scores.items():
        table.add_row(f"validation {name}", *("-" if score is None else f"{score:.4f}" for score in scores))
    table.add_row("MB of weights", *(f"{v.weights_bytes / 1e6:.1f}" for v in (comparison.a, comparison.b)))
    _OUT.print(table)
    if comparison.apart is None:
        line("their weights are those of different networks")
    else:
        line(f"their weights are {comparison.apart:.3g} of their length apart")


def soup(made: "Soup") -> None:
    """What went into a soup, and what it is worth."""
    if made.scores:
        table = Table("member", "mean score of its classes", "in the soup")
        for name, score in made.scores.items():
            table.add_row(name, f"{score:.4f}", "yes" if name in made.members else "" if name == "soup" else "no")
        _OUT.print(table)
    line(f"registered {made.version.uri}, merged from {', '.join(made.members)}")


def tuned(made: "Tuned") -> None:
    """What tuning chose for each class, where the most is left to gain first."""
    from ensemble.plan import route_in_words

    table = Table("class", "before", "after", "held out", "could gain", "chosen", "because", title="tuned")
    for result in sorted(made.results, key=lambda result: -(result.could_gain or 0)):
        scores = (result.official_before, result.official_after, result.chosen.held_out, result.could_gain)
        shown = ["-" if score is None else f"{score:.4f}" for score in scores]
        chosen = route_in_words(result.chosen.route) if result.chosen.changed else "as it was"
        table.add_row(result.unit.label, *shown, chosen, result.chosen.why)
    _OUT.print(table)
    for crop, names in made.leaks.items():
        _OUT.print(f"leakage: {', '.join(names)} was trained on {crop}; these scores flatter", style="yellow")
    line(f"overall score {made.overall_before:.4f} -> {made.overall_after:.4f} on the tuning crops")
    recorded = f"MLflow run {made.run_id}" if made.run_id else "not recorded"
    line(f"recipe: {made.recipe}   {recorded}")


def difference(found: "Difference") -> None:
    """What changed between two submissions, by class, the largest change first."""
    for name, (a, b) in found.routes.items():
        line(f"{name}: {a} -> {b}")
    voxels = ("in both", "only in A", "only in B", "in other objects")
    table = Table(
        "class", *voxels, "objects A", "objects B", "the same", title="voxels and objects", title_justify="left"
    )
    for name, change in found.by_class().items():
        if change.any:
            counts = (f"{n:,}" for n in (change.both, change.only_a, change.only_b, change.moved))
            objects = ("-" if n is None else f"{n:,}" for n in (change.objects_a, change.objects_b, change.kept))
            table.add_row(name, *counts, *objects)
    if table.row_count:
        _OUT.print(table)
    else:
        line("no voxel differs")
    for key, (before, after) in found.scores.items():
        if before != after:
            line(f"{key}: {before:.4f} -> {after:.4f} ({after - before:+.4f})")
    if found.missing:
        line(f"only in one of them: {', '.join(found.missing)}")


def leftovers(found: Mapping[Path, int], *, freed: bool) -> None:
    """What a build no longer needs, with its bytes on disk, largest first."""
    for path, size in sorted(found.items(), key=lambda item: -item[1]):
        line(f"{size_in_words(size):>10}  {path}")
    line(
        f"{size_in_words(sum(found.values()))} {'freed' if freed else 'to be freed'}"
        if found
        else "nothing is left over"
    )
