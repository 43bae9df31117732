"""Which EM a job reads."""

from ensemble.plan import Job
from ensemble.storage import EM, Tissue


def tissue_of(em: EM, job: Job) -> Tissue:
    """The EM that a job reads."""
    return em.tissue(job.dataset, job.fit.level, job.tissue_box)
