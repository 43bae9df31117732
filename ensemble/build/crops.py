"""Every crop's arrays from what networks and other tools said: what is finished stays, what is begun goes on."""

from dataclasses import replace
from functools import cached_property, partial

from ensemble.build.cache_keys import group_key
from ensemble.build.workspace import Workspace
from ensemble.decode import CropAssembly, GroupOutcome, LayoutChanged, Probability, Told, assemble_group, groups_of
from ensemble.engine import Engine, Work, done
from ensemble.plan import Budget, CropPlan, Plan
from ensemble.predict import Predictor
from ensemble.support import Progress, VolumeError

CROPS_AT_ONCE = 4
"""At least: where some find objects that leave no memory for others', another has voxels to decide."""

Group = tuple[str, tuple[str, ...]]
"""A crop, and classes of it that are decided together."""


class Crops:
    """The arrays of a plan's crops. ``made``: how many groups were assembled, not found finished."""

    def __init__(self, plan: Plan, predictor: Predictor, work: Workspace, budget: Budget, progress: Progress) -> None:
        self._plan, self._predictor, self._work = plan, predictor, work
        self._budget, self._progress = budget, progress
        self._joint = plan.recipe.consistency == "joint"
        self._shares: dict[Group, float] = {}
        self.made = 0

    @cached_property
    def keys(self) -> dict[Group, str]:
        """Group -> what decides its arrays."""
        return {
            (crop.target.crop, group): group_key(crop, group, self._predictor, self._budget, joint=self._joint)
            for crop in self._plan.crops
            for group in groups_of(crop, joint=self._joint)
        }

    def assemble(self, engine: Engine) -> dict[str, list[GroupOutcome]]:
        """The outcomes of every crop's groups.

        Raises VolumeError also for what shows only when all has been read: a source on another scale.
        """
        crops = self._plan.crops
        self._progress.stage("assemble", sum(crop.target.grid.size * len(crop.target.classes) for crop in crops))
        # the largest first, so that no worker is left alone with one in the end
        largest_first = sorted(crops, key=lambda crop: -crop.target.grid.size * len(crop.claimed))
        outcomes = dict(done(engine, map(self._crop, largest_first), max(CROPS_AT_ONCE, engine.at_once)))
        of_crop = {crop.target: outcomes[number] for number, crop in enumerate(largest_first)}
        in_order = {crop.target: of_crop[crop.target] for crop in crops}
        self._predictor.refuse_other_scales(
            (target.crop, outcome.highest) for target, of_crop in in_order.items() for outcome in of_crop
        )
        return {target.group: of_crop for target, of_crop in in_order.items()}

    def _crop(self, crop: CropPlan) -> Work[list[GroupOutcome]]:
        outcomes = []
        for group in groups_of(crop, joint=self._joint):
            key = self.keys[crop.target.crop, group]
            outcome = self._work.finished(crop.target, group, key)
            if outcome is None:
                outcome = yield from self._group(crop, group, key)
                self.made += 1
            outcomes.append(outcome)
            self._at(crop, group, 1.0)
        return outcomes

    def _group(self, crop: CropPlan, group: tuple[str, ...], key: str) -> Work[GroupOutcome]:
        try:
            try:
                outcome = yield from self._go_on(crop, group, key)
            except LayoutChanged:
                self._work.drop(crop.target)
                outcome = yield from self._go_on(crop, group, key)
        except VolumeError as error:
            raise self._without_damaged(crop, error) from error
        self._work.finish(crop.target, group, key, outcome)
        return outcome

    def _go_on(self, crop: CropPlan, group: tuple[str, ...], key: str) -> Work[GroupOutcome]:
        """Assemble a group from where its journal says it was left."""
        journal = self._work.begin(crop.target, group, key)
        (run,) = journal.noted("run")
        try:
            assembly = CropAssembly(
                crop,
                Probability(crop, self._predictor.fields(crop)),
                partial(self._work.temporary, crop.target, run),
                partial(self._work.array, crop.target, run),
                replace(self._budget, workers=1),  # others are at work beside it
            )
            told = Told(lambda what, share: self._at(crop, group, share / 2, what), self._progress.say)
            return (yield from assemble_group(assembly, group, joint=self._joint, journal=journal, key=key, told=told))
        finally:
            journal.close()

    def _at(self, crop: CropPlan, group: tuple[str, ...], share: float, what: str = "") -> None:
        target = crop.target
        self._shares[target.crop, group] = share * target.grid.size * len(group)
        self._progress.at(sum(self._shares.values()), f"crop {target.crop}: {what} {2 * share:.0%}" if what else "")

    def _without_damaged(self, crop: CropPlan, error: VolumeError) -> VolumeError:
        """The error, or what to do about it where it is what this build kept itself that is damaged: it is dropped."""
        for job in crop.jobs:
            stored = self._predictor.stored(job)
            if stored is not None and str(error).startswith(str(stored.place)):
                stored.forget()
                return VolumeError(f"{error}: it was dropped; run the same command again to predict it anew")
        if str(error).startswith(str(self._work.root)):
            self._work.drop(crop.target)
            return VolumeError(f"{error}: it was dropped; run the same command again to assemble it anew")
        return error
