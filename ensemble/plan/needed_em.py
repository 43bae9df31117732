"""Which EM a plan's networks read: what is to be fetched for a machine that reaches no network."""

from ensemble.core import Box
from ensemble.plan.plan import Plan
from ensemble.storage import EM


def em_needed(plan: Plan, em: EM) -> dict[tuple[str, int], list[Box]]:
    """By data set and number of the level the boxes of its voxels that jobs read, context and mirrored ones too."""
    boxes: dict[tuple[str, int], list[Box]] = {}
    for job in plan.jobs:
        tissue = em.tissue(job.dataset, job.fit.level, job.tissue_box)
        of_level = boxes.setdefault((job.dataset, job.fit.level), [])
        box = tissue.looked_at(job.level_box)
        if box not in of_level:
            of_level.append(box)
    return boxes
