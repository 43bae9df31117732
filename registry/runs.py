"""MLflow runs: what was registered, built, tuned or trained, with its numbers and files."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ensemble.support import RegistryError
from registry.connection import Connection, persistently, unless_there
from registry.embedded import artifacts_of
from registry.server_trouble import NO_MLFLOW

if TYPE_CHECKING:
    from mlflow.entities import Run

MODELS, BUILDS, TUNINGS, TRAININGS = "ensemble models", "ensemble builds", "ensemble tunings", "ensemble training"
PARAMETERS_PER_CALL = 100
METRICS_PER_CALL = 1000
NOTE_CHARACTERS = 5000
DIGEST_CHARACTERS = 36

_NOTE = "mlflow.note.content"

RunStatus = Literal["FINISHED", "KILLED", "FAILED"]


@dataclass(frozen=True)
class MetricPoint:
    """A metric's value at a step of a training, and when it was reached."""

    name: str
    value: float
    milliseconds: int
    step: int


@dataclass(frozen=True)
class DataUsed:
    """EM, with truth or without, that a run was of: ``name`` it, its ``digest`` changes when it does."""

    name: str
    digest: str
    place: str
    use: Literal["training", "validation", "prediction"]


class Runs:
    """The runs behind a connection, each in one of the experiments named above.

    Every method raises RegistryError if the store does not answer.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write_fault(self) -> str | None:
        """Why no run can be recorded; None where that cannot be seen beforehand."""
        return self._connection.write_fault()

    def record(
        self,
        experiment: str,
        name: str,
        *,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        tags: dict[str, str],
        artifacts: Sequence[Path] = (),
        parent: str | None = None,
        data: Sequence[DataUsed] = (),
        note: str = "",
    ) -> str:
        """The id of a finished run, below the run ``parent`` if one is given; ``artifacts``: files, folders.

        ``note``: Markdown for its page.
        """
        tags = tags if parent is None else {**tags, "mlflow.parentRunId": parent}
        tags = {**tags, _NOTE: note[:NOTE_CHARACTERS]} if note else tags
        for path in artifacts:
            if not Path(path).exists():
                raise RegistryError(f"{path}: not there, so it cannot be recorded")
        with self._connection.writing(), self.finishing(experiment, name, tags) as run:
            run_id = str(run.info.run_id)
            self._log(run_id, params, metrics, artifacts)
            self._log_data(run_id, data)
        return run_id

    def add(self, run_id: str, metrics: Mapping[str, float], artifacts: Sequence[Path] = ()) -> None:
        """Add metrics and files to a run there is. Raises RegistryError when there is no such run."""
        if not self._connection.exists():
            raise RegistryError(f"{self._connection.address}: there is no registry, and so no run {run_id}")
        with self._connection.writing():
            self._log(run_id, {}, metrics, artifacts)

    def add_table(self, run_id: str, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Add rows to a table of a run, as MLflow's page of its evaluations shows them."""
        with self._connection.writing():
            self._connection.client.log_table(run_id, {key: list(values) for key, values in columns.items()}, name)

    def add_points(self, run_id: str, points: Sequence[MetricPoint]) -> None:
        """Add values of metrics at their steps; adding one twice is as good as once."""
        with self._connection.writing():
            self._log_points(run_id, points)

    def begin(
        self,
        experiment: str,
        name: str,
        *,
        params: Mapping[str, str],
        tags: dict[str, str],
        texts: Mapping[str, str],
        data: Sequence[DataUsed] = (),
    ) -> str:
        """The id of a run that goes on until ``end``; ``texts``: the contents of its files by name."""
        with self._connection.writing():
            run_id = str(self._create(experiment, name, tags).info.run_id)
            self._log(run_id, params, {}, ())
            for file, text in texts.items():
                self._connection.client.log_text(run_id, text, file)
            self._log_data(run_id, data)
        return run_id

    def resume(self, run_id: str) -> bool:
        """Let a run go on that was ended; whether there is such a run here."""
        with self._connection.writing():
            from mlflow.exceptions import MlflowException

            try:
                self._connection.client.update_run(run_id, status="RUNNING")
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise
        return True

    def end(self, run_id: str, status: RunStatus) -> None:
        with self._connection.writing():
            persistently(lambda: self._connection.client.set_terminated(run_id, status))

    @contextmanager
    def finishing(self, experiment: str, name: str, tags: dict[str, str]) -> "Iterator[Run]":
        """A run that is finished if all goes well, and else deleted; ask for it inside ``writing``."""
        from mlflow.exceptions import MlflowException

        client = self._connection.client
        run = self._create(experiment, name, tags)
        try:
            yield run
            client.set_terminated(run.info.run_id)
        except BaseException:
            with suppress(MlflowException, OSError):
                client.set_terminated(run.info.run_id, "FAILED")
                client.delete_run(run.info.run_id)
            raise

    def _create(self, experiment: str, name: str, tags: dict[str, str]) -> "Run":
        identifier = self._experiment(experiment)
        run = persistently(lambda: self._connection.client.create_run(identifier, tags=tags, run_name=name))
        if not run.info.run_id:
            raise RegistryError(f"{self._connection.address}: {NO_MLFLOW}")
        return run

    def _experiment(self, name: str) -> str:
        """The id of the experiment of that name, made if it is not there."""
        client, database = self._connection.client, self._connection.database
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            location = None if database is None else artifacts_of(database).as_uri()
            unless_there(lambda: client.create_experiment(name, artifact_location=location))
            experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise RegistryError(f"{self._connection.address}: experiment {name!r} was deleted while it was made")
        return experiment.experiment_id

    def _log(
        self, run_id: str, params: Mapping[str, str], metrics: Mapping[str, float], artifacts: Sequence[Path]
    ) -> None:
        from mlflow.entities import Param

        client, now = self._connection.client, int(time.time() * 1000)
        self._log_points(run_id, [MetricPoint(key, value, now, 0) for key, value in metrics.items()])
        values = [Param(key, str(value)) for key, value in params.items()]
        for start in range(0, len(values), PARAMETERS_PER_CALL):
            persistently(partial(client.log_batch, run_id, params=values[start : start + PARAMETERS_PER_CALL]))
        for path in map(Path, artifacts):
            if path.is_dir():
                client.log_artifacts(run_id, str(path), path.name)
            else:
                client.log_artifact(run_id, str(path))

    def _log_data(self, run_id: str, data: Sequence[DataUsed]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(one.name, one.digest[:DIGEST_CHARACTERS], "em", json.dumps({"place": one.place})),
                [InputTag("mlflow.data.context", one.use)],
            )
            for one in data
        ]
        if inputs:
            persistently(partial(self._connection.client.log_inputs, run_id, datasets=inputs))

    def _log_points(self, run_id: str, points: Sequence[MetricPoint]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(point.name, point.value, point.milliseconds, point.step) for point in points]
        for start in range(0, len(metrics), METRICS_PER_CALL):
            batch = metrics[start : start + METRICS_PER_CALL]
            persistently(partial(self._connection.client.log_batch, run_id, metrics=batch))
