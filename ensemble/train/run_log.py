"""A training as an MLflow run: its spec, its loss curve, its validation scores."""

import time
from collections.abc import Sequence

from ensemble.support import RegistryError, dump_yaml, without_credentials
from ensemble.train.spec import TrainingSpec
from registry import TRAININGS, DataUsed, MetricPoint, Runs, RunStatus


class TrainingLog:
    """One run of the experiment "ensemble training". Metrics are gathered and sent by ``flush``."""

    def __init__(self, runs: Runs, run_id: str) -> None:
        self._runs, self.run_id = runs, run_id
        self._waiting: list[MetricPoint] = []

    @classmethod
    def begin(
        cls, runs: Runs, spec: TrainingSpec, digest: str, run_id: str | None, data: Sequence[DataUsed]
    ) -> "TrainingLog":
        """A new run, or the one of ``run_id`` if it is there already: the store may be another than last time."""
        if run_id is not None and runs.resume(run_id):
            return cls(runs, run_id)
        values = spec.model_dump(mode="json")
        params = {key: without_credentials(str(value))[:500] for key, value in values.items()}
        texts = {"spec.yaml": without_credentials(dump_yaml(values))}
        tags = {"digest": digest}
        return cls(runs, runs.begin(TRAININGS, spec.name, params=params, tags=tags, texts=texts, data=data))

    def add(self, step: int, metrics: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        self._waiting += [MetricPoint(key, value, now, step) for key, value in metrics.items()]

    def flush(self) -> None:
        """Send what was gathered; if the store does not answer, it is kept for the next time."""
        try:
            self._send()
        except RegistryError:
            return

    def end(self, status: RunStatus) -> None:
        """Send the rest and close the run."""
        self._send()
        self._runs.end(self.run_id, status)

    def _send(self) -> None:
        self._runs.add_points(self.run_id, self._waiting)
        self._waiting.clear()
