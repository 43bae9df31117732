"""A training as an MLflow run: its spec, its loss curve, its validation scores."""

import time
from typing import Any

from ensemble.support import yaml_files as yamlfile
from ensemble.support.errors import RegistryError
from ensemble.train.spec import TrainingSpec
from registry.connection import Connection, persistently, unless_there

EXPERIMENT = "ensemble training"


class TrainingLog:
    """One run of the experiment "ensemble training"; ``run_id`` goes on with a run that is there already.

    Metrics are gathered and sent by ``flush``.
    """

    def __init__(self, tracking_uri: str, spec: TrainingSpec, digest: str, run_id: str | None) -> None:
        self._to = Connection(tracking_uri)
        self._waiting: list[Any] = []
        with self._to.answering():
            if run_id is None or not self._goes_on(run_id):
                run_id = self._begin(spec, digest)
        self.run_id = run_id

    def _goes_on(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._to.client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # another store than last time
                return False
            raise
        return True

    def _begin(self, spec: TrainingSpec, digest: str) -> str:
        from mlflow.entities import Param

        client, plain = self._to.client, spec.model_dump(mode="json")
        experiment, tags = self._experiment(), {"digest": digest}
        run = persistently(lambda: client.create_run(experiment, run_name=spec.name, tags=tags))
        told = [Param(key, str(value)[:500]) for key, value in plain.items()]
        persistently(lambda: client.log_batch(run.info.run_id, params=told))
        client.log_text(run.info.run_id, yamlfile.dump_yaml(plain), "spec.yaml")
        return run.info.run_id

    def _experiment(self) -> str:
        client, database = self._to.client, self._to.database
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            location = None if database is None else (database.parent / "artifacts").as_uri()
            unless_there(lambda: client.create_experiment(EXPERIMENT, artifact_location=location))
            found = client.get_experiment_by_name(EXPERIMENT)
        return found.experiment_id

    def add(self, step: int, metrics: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(key, value, now, step) for key, value in metrics.items()]

    def flush(self) -> None:
        """Send what was gathered; if the store does not answer, it is kept for the next time."""
        try:
            self._send()
        except RegistryError:
            return

    def end(self, status: str) -> None:
        """Send the rest and close the run as "FINISHED", "KILLED" or "FAILED"."""
        self._send()
        with self._to.answering():
            persistently(lambda: self._to.client.set_terminated(self.run_id, status))

    def _send(self) -> None:
        with self._to.answering():
            while self._waiting:
                part = self._waiting[:1000]
                persistently(lambda part=part: self._to.client.log_batch(self.run_id, metrics=part))
                del self._waiting[: len(part)]
