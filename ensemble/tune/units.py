"""What is tuned, and what may be chosen for it: a class for each entry of the recipe that routes crops with truth."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ensemble.core import Target
from ensemble.plan import EmptySource, MixedSource, Recipe
from ensemble.storage import open_truth
from ensemble.support import EnsembleError
from ensemble.tune.candidates import Candidates
from ensemble.tune.folds import FOLDS, TuningUnit
from ensemble.tune.search import MOST_OPTIONS, ROUNDS, SIMPLIFIED
from ensemble.tune.space import Space, space_of_class


def units_of(
    recipe: Recipe, targets: Sequence[Target], candidates: Candidates, truth: Path, data_root: str
) -> dict[TuningUnit, Space]:
    """The space of every unit. Raises EnsembleError where the truth is of no class that is routed."""
    units: dict[TuningUnit, Space] = {}
    for name in dict.fromkeys(name for target in targets for name in target.classes):
        by_entry: dict[int | None, list[Target]] = {}
        for target in targets:
            routed = name in target.classes and not isinstance(recipe.route(name, target).source, EmptySource)
            if routed and open_truth(truth, target, name):
                by_entry.setdefault(recipe.entry(name, target), []).append(target)
        for entry, inside in by_entry.items():
            unit = TuningUnit(name, entry, tuple(target.crop for target in inside))
            units[unit] = _space(recipe, name, inside, candidates, data_root)
    if not units:
        raise EnsembleError(f"{truth}: holds truth for no class that the recipe routes; take another")
    return units


def _space(recipe: Recipe, name: str, targets: Sequence[Target], candidates: Candidates, data_root: str) -> Space:
    by_crop = [set(candidates.for_class(name, target, data_root)) for target in targets]
    common = [source for source in candidates.sources if all(source in sources for sources in by_crop)]
    voxel_nm = min(min(target.grid.voxel_size_nm) for target in targets)
    route = recipe.route(name, targets[0])
    return space_of_class(name, route, common, candidates.augmented, voxel_nm, candidates.narrowed(name))


def most_evaluations(space: Space, trials: int) -> int:
    """How often at most a unit's crops are decided and counted while it stands alone."""
    if space.by_curve:
        return len(space.sources) + 1
    kinds = len({isinstance(source, MixedSource) for source in space.sources})
    return 1 + len(space.sources) + (1 + FOLDS) * kinds * (trials + 2 * SIMPLIFIED)


def most_voxels(units: Mapping[TuningUnit, Space], targets: Sequence[Target], trials: int, *, joint: bool) -> int:
    """How many voxels tuning at most decides and counts, each class alone and then, if ``joint``, all together."""
    voxels = {target.crop: target.grid.size for target in targets}
    alone = (most_evaluations(space, trials) * sum(voxels[c] for c in unit.crops) for unit, space in units.items())
    of_all = sum(target.grid.size * len(target.classes) for target in targets)
    return sum(alone) + (ROUNDS * MOST_OPTIONS * len(units) * of_all if joint else 0)
