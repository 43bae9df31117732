"""What people see on a terminal: progress, plans, models, reports; plain when piped."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from ensemble.support import QuietProgress, StageClock, duration, plain_line

if TYPE_CHECKING:
    from ensemble.build import Finding
    from ensemble.plan import Budget, CropPlan, Job, Plan
    from ensemble.report import Difference
    from ensemble.submission import CheckReport
    from ensemble.tune import Soup, Tuned, TuningPlan, TuningTask
    from registry import Comparison, ModelVersion, Verification

_PIPE_COLUMNS = 240
_RELATIONS = 10
"""So many ways of contradicting are printed."""
_OUT = Console(highlight=False, soft_wrap=True)
_ERR = Console(stderr=True, highlight=False, soft_wrap=True)
if not _OUT.is_terminal:
    _OUT = Console(highlight=False, soft_wrap=True, width=_PIPE_COLUMNS)


def line(text: str) -> None:
    _OUT.print(text, markup=False)


def note(text: str) -> None:
    """A line beside the result, on stderr."""
    _ERR.print(text, markup=False)


class _Clock(ProgressColumn):
    """Of a stage the time gone, and about the time left."""

    def render(self, task: Task) -> Text:
        gone, left = task.finished_time or task.elapsed or 0, task.time_remaining
        ahead = "" if task.finished or left is None else f", about {duration(left)} left"
        return Text(f"{duration(gone)} gone{ahead}")


class _Shown:
    """A bar per stage on stderr; without a terminal a line when each begins, and one a minute."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._clock: StageClock | None = None

    def stage(self, name: str, total: float) -> None:
        self.close()
        if not _ERR.is_terminal:
            _ERR.print(f"{name} …", markup=False)
            self._clock = StageClock(name, total, time.monotonic())
        self._task = self._bars.add_task(name, total=max(total, 1e-9), what="")

    def at(self, done: float, what: str = "") -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=done, what=what)
        if self._clock is not None and (text := self._clock.line(done, what, time.monotonic())) is not None:
            _ERR.print(text, markup=False)

    def say(self, text: str) -> None:
        self._bars.console.print(text, markup=False)

    def close(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=self._bars.tasks[-1].total, what="")
            self._task = self._clock = None


@contextmanager
def progress(show: bool = True) -> Iterator[_Shown | QuietProgress]:
    """Shows progress while the work in the block goes on."""
    if not show:
        yield QuietProgress()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), _Clock())
    with Bars(*columns, TextColumn("{task.fields[what]}"), console=_ERR, disable=not _ERR.is_terminal) as bars:
        shown = _Shown(bars)
        yield shown
        shown.close()


def report(found: "CheckReport") -> None:
    """What a check found: faults and warnings by name, then what the arrays hold, in words."""
    for text in found.faults:
        _OUT.print(f"fault: {text}", style="red", markup=False)
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
    verdict = f"{len(found.faults)} faults" if found.faults else "no fault"
    line(f"made for {found.made_for}")
    line(f"{arrays} arrays checked: {verdict}, {len(found.warnings)} warnings, {len(found.empty)} empty arrays")


def finding(found: "Finding") -> None:
    """One line of the doctor's."""
    styles = {"good": "green", "look": "yellow", "wrong": "red"}
    _OUT.print(f"{found.state:<6}{found.about}: {plain_line(found.text)}", style=styles[found.state], markup=False)


def warnings(lines: Iterable[str]) -> None:
    for text in map(plain_line, lines):
        _OUT.print(f"warning: {text}", style="yellow", markup=False)


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


def tuning_plan(value: "TuningPlan", task: "TuningTask") -> None:
    """What tuning would try of each class, the passes it needs, and the hours."""
    from ensemble.predict import found_in_words

    table = Table("class", "crops", "candidates", "sources and mixes", title="candidates", title_justify="left")
    for unit, space in value.units.items():
        table.add_row(
            unit.label, " ".join(unit.crops), ", ".join(value.candidates(unit)) or "as it is", str(len(space.sources))
        )
    _OUT.print(table)
    for text in value.skipped:
        line(f"not tried: {text}")
    if value.survey.jobs:
        _OUT.print(_passes(value.survey, task.request.budget))
        found = found_in_words(value.found, len(value.survey.jobs))
        line(f"predicting: {found}, about {_hours(value.predicting_s)}, by a patch of each network that was timed")
    limit = "" if task.minutes is None else f"; nothing new is begun after {_hours(60 * task.minutes)} (--minutes)"
    voxels = value.evaluated_voxels / 1e9
    line(f"searching: at most {voxels:.2f} Gvoxel to decide and count, about {_hours(value.searching_s)}{limit}")
    line("nothing was predicted or tried; without --plan it begins")


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 360 else f"{seconds / 60:.1f} min"


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
        line(f"{_bytes(size):>10}  {path}")
    line(f"{_bytes(sum(found.values()))} {'freed' if freed else 'to be freed'}" if found else "nothing is left over")


def plan(value: "Plan", budget: "Budget") -> None:
    """The routes, class by class where crops agree, and what they cost."""
    from ensemble.plan import PlanCost

    routes = Table("class", "crops", "source", "resampled", "decision", "post-processing", title="routes")
    for (name, *cells), crops in _routes(value).items():
        routes.add_row(name, " ".join(crops), *cells)
    _OUT.print(routes)
    _OUT.print(_passes(value, budget))
    cost = PlanCost.of(value, budget)
    line(
        f"{cost.arrays} arrays, {cost.voxels / 1e9:.2f} Gvoxel; {cost.forward_passes:,} forward passes, "
        f"{_bytes(cost.stored_bytes)} of probabilities before compression, "
        f"about {_bytes(cost.peak_memory_bytes)} of memory at the peak"
    )


def _passes(value: "Plan", budget: "Budget") -> Table:
    jobs = Table("source", "model", "crop", "EM", "patches", "passes", "Mvoxel", "stored", "memory", title="passes")
    for job in value.jobs:
        jobs.add_row(*_job(job, budget))
    return jobs


def _routes(value: "Plan") -> dict[tuple[str, ...], list[str]]:
    rows: dict[tuple[str, ...], list[str]] = {}
    for crop in value.crops:
        for name in crop.target.classes:
            rows.setdefault(_route(crop, name), []).append(crop.target.crop)
    return dict(
        sorted(
            rows.items(),
            key=lambda row: (
                list(value.crops[0].target.classes).index(row[0][0])
                if row[0][0] in value.crops[0].target.classes
                else 999
            ),
        )
    )


def _route(crop: "CropPlan", name: str) -> tuple[str, ...]:
    from ensemble.plan import ClassDescription

    if name not in crop.claimed:
        return (name, "empty", "", "zeros", "")
    route, row = crop.routes[name], ClassDescription.of(crop, name)
    source = _source(row.source)
    versions = ", ".join(f"{s} = {m.model.removeprefix('models:/')}" for s, m in row.models.items() if s in source)
    decision = f"p > {route.threshold:g}" + ("" if route.weight == 1 else f", weight {route.weight}")
    chain = " → ".join(_step(step) for step in row.postprocess)
    resampled = ", ".join(dict.fromkeys(m.resampled for m in row.models.values()))
    return (name, f"{source} ({versions})" if versions else source, resampled, decision, chain)


def _source(described: Any) -> str:
    if isinstance(described, str):
        return described
    ((how, members),) = described.items()
    parts = [f"{m[1]:g}·{_source(m[0])}" if isinstance(m, list) else m for m in members]
    return f"{how}({', '.join(parts)})"


def _step(described: Mapping[str, Mapping[str, Any]]) -> str:
    ((name, parameters),) = described.items()
    return name + "".join(
        f" {key} {value:g}" if isinstance(value, float) else f" {key} {value}" for key, value in parameters.items()
    )


def _job(job: "Job", budget: "Budget") -> tuple[str, ...]:
    from ensemble.plan import voxel_size_in_words

    return (
        job.source,
        f"{job.model.name}/{job.model.version}",
        job.crop,
        f"{voxel_size_in_words(job.level_grid)} nm, {job.em_in_words}",
        f"{job.patches:,}",
        f"{job.forward_passes:,}",
        f"{job.lattice.size / 1e6:.1f}",
        _bytes(job.stored_bytes),
        _bytes(budget.predicting_bytes(job)),
    )


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
