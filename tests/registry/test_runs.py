"""Runs in MLflow: a build is recorded whole or not at all, a training while it goes on."""

import json
from pathlib import Path

import pytest

from ensemble.support.errors import RegistryError
from registry.runs import BUILDS, TRAININGS, DataUsed, MetricPoint
from tests.support.empty_registry import store_in
from tests.support.small_models import refusal


def test_a_build_is_a_finished_run_with_all_it_was_given(any_store, tmp_path):
    (tmp_path / "lock.yaml").write_text("models: {}\n")
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "check.json").write_text("{}")
    params = {f"p{i}": str(i) for i in range(130)}
    run_id = any_store.runs.record(
        BUILDS,
        "final",
        params=params,
        metrics={"iou/mito": 0.75},
        tags={"git": "abc"},
        artifacts=[tmp_path / "lock.yaml", tmp_path / "checks"],
    )
    client = any_store._mlflow.client
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "final"
    assert client.get_experiment(run.info.experiment_id).name == "ensemble builds"
    assert run.data.params == params
    assert run.data.metrics == {"iou/mito": 0.75}
    assert run.data.tags["git"] == "abc"
    lock = client.download_artifacts(run_id, "lock.yaml", str(tmp_path / "cache"))
    assert Path(lock).read_text() == "models: {}\n"
    assert [item.path for item in client.list_artifacts(run_id, "checks")] == ["checks/check.json"]


def test_a_build_without_its_files_is_not_recorded(store, tmp_path):
    message = refusal(store.runs.record, BUILDS, "b", params={}, metrics={}, tags={}, artifacts=[tmp_path / "absent"])
    assert message.startswith(f"{tmp_path / 'absent'}: not there")


def test_metrics_and_files_are_added_to_a_run_there_is(store, tmp_path):
    run_id = store.runs.record(BUILDS, "b", params={}, metrics={"a": 1.0}, tags={})
    (tmp_path / "scores.json").write_text("{}")
    store.runs.add(run_id, {"later": 0.5}, [tmp_path / "scores.json"])
    client = store._mlflow.client
    assert client.get_run(run_id).data.metrics == {"a": 1.0, "later": 0.5}
    assert [item.path for item in client.list_artifacts(run_id)] == ["scores.json"]
    assert "the model registry failed" in refusal(store.runs.add, "0" * 32, {"a": 1.0})


def test_a_run_below_another_says_so(store):
    parent = store.runs.record(BUILDS, "all", params={}, metrics={}, tags={})
    run_id = store.runs.record(BUILDS, "part", params={}, metrics={}, tags={"git": "abc"}, parent=parent)
    tags = store._mlflow.client.get_run(run_id).data.tags
    assert (tags["mlflow.parentRunId"], tags["git"]) == (parent, "abc")


def test_a_run_goes_on_until_it_ends_and_after_it_was_resumed(store, tmp_path):
    run_id = store.runs.begin(TRAININGS, "t", params={"steps": "2"}, tags={}, texts={"spec.yaml": "steps: 2\n"})
    client = store._mlflow.client
    assert client.get_run(run_id).info.status == "RUNNING"
    point = MetricPoint("loss", 0.5, 1000, 1)
    for points in ([point, MetricPoint("loss", 0.25, 2000, 2)], [point]):
        store.runs.add_points(run_id, points)
    found = {(m.value, m.timestamp, m.step) for m in client.get_metric_history(run_id, "loss")}
    assert found == {(0.5, 1000, 1), (0.25, 2000, 2)}
    store.runs.end(run_id, "KILLED")
    assert client.get_run(run_id).info.status == "KILLED"
    assert store.runs.resume(run_id)
    assert client.get_run(run_id).info.status == "RUNNING"
    assert not store_in(tmp_path / "other").runs.resume(run_id)


def test_what_fails_within_a_run_deletes_it(store):
    with pytest.raises(RegistryError), store._mlflow.answering(), store.runs.finishing(BUILDS, "b", {}) as run:
        raise RegistryError("no")
    assert store._mlflow.client.get_run(run.info.run_id).info.lifecycle_stage == "deleted"


def test_a_run_tells_which_data_it_was_of_and_has_a_note_and_tables(any_store, tmp_path):
    data = [
        DataUsed("fly crop 1", "a" * 64, "s3://bucket", "training"),
        DataUsed("fly crop 2", "b", "/data", "validation"),
    ]
    begun = any_store.runs.begin(TRAININGS, "t", params={}, tags={}, texts={}, data=data)
    any_store.runs.end(begun, "FINISHED")
    built = any_store.runs.record(BUILDS, "b", params={}, metrics={}, tags={}, data=data[:1], note="[a](#/models/a)")
    any_store.runs.add_table(built, "scores.json", {"class": ["mito", "er"], "score": [0.5, 0.25]})
    client = any_store._mlflow.client
    inputs = [
        (i.dataset.name, i.dataset.digest, i.dataset.source, {tag.key: tag.value for tag in i.tags})
        for i in client.get_run(begun).inputs.dataset_inputs
    ]
    assert sorted(inputs) == [
        ("fly crop 1", "a" * 36, '{"place": "s3://bucket"}', {"mlflow.data.context": "training"}),
        ("fly crop 2", "b", '{"place": "/data"}', {"mlflow.data.context": "validation"}),
    ]
    assert client.get_run(built).data.tags["mlflow.note.content"] == "[a](#/models/a)"
    table = json.loads(Path(client.download_artifacts(built, "scores.json", str(tmp_path))).read_text())
    assert table == {"columns": ["class", "score"], "data": [["mito", 0.5], ["er", 0.25]]}
    assert "scores.json" in client.get_run(built).data.tags["mlflow.loggedArtifacts"]  # MLflow shows it as a table
