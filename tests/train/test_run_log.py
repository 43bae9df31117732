"""The run of a training, on a real sqlite store."""

from mlflow import MlflowClient

from ensemble.train.run_log import TrainingLog
from tests.support.empty_registry import store_in
from tests.support.small_training import spec_of


def test_a_run_holds_what_was_added_and_is_gone_on_with(tmp_path):
    store, spec = store_in(tmp_path), spec_of(tmp_path)
    log = TrainingLog.begin(store.runs, spec, "digest", None, [])
    log.add(10, {"loss": 0.5})
    log.flush()
    log.add(20, {"loss": 0.25, "dice": 0.75})
    log.end("KILLED")
    again = TrainingLog.begin(store.runs, spec, "digest", log.run_id, [])
    assert again.run_id == log.run_id
    again.add(30, {"loss": 0.125})
    again.end("FINISHED")
    client = MlflowClient(store.tracking_uri)
    run = client.get_run(log.run_id)
    assert (run.info.status, run.info.run_name, run.data.tags["digest"]) == ("FINISHED", "blobs", "digest")
    assert run.data.params["steps"] == "60"
    history = client.get_metric_history(log.run_id, "loss")
    assert [(one.step, one.value) for one in history] == [(10, 0.5), (20, 0.25), (30, 0.125)]
    assert run.data.metrics["dice"] == 0.75


def test_a_run_of_another_store_is_begun_anew(tmp_path):
    log = TrainingLog.begin(store_in(tmp_path).runs, spec_of(tmp_path), "digest", "0" * 32, [])
    assert log.run_id != "0" * 32
    log.end("FINISHED")
