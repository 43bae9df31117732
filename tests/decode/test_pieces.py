"""The tasks of a crop can be sent, done twice and by several at once: the same files."""

import pickle
from collections import deque
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ensemble.build.workspace import Workspace
from ensemble.decode.assembling import MemoryJournal, assemble_group
from ensemble.decode.mixing import Probability
from ensemble.decode.pieces import CropAssembly
from ensemble.engine.here import Here
from ensemble.engine.task import Finished, Task
from ensemble.engine.work import Engine, done
from ensemble.plan.budget import Budget
from tests.support.known_crop import Given, cloud, plan_of, route, step

ROUTES = {
    "cell": route(threshold=0.3, steps=(step("keep_largest", count=2),)),
    "nuc": route(threshold=0.6, steps=(step("fill_holes"), step("components"), step("drop_small", min_size_voxels=80))),
    "mito": route(
        threshold=0.45, steps=(step("watershed", min_distance_nm=24), step("drop_small", min_size_voxels=50))
    ),
    "mito_mem": route(threshold=0.5),
    "ves": route(threshold=0.55, steps=(step("drop_small", min_size_voxels=60),)),
}


class SentTwice:
    """An engine that sends each task as bytes, to two workers, of which the second is slow."""

    at_once = 3
    is_idle = False

    def __init__(self) -> None:
        self.hear = lambda task, news: None
        self._sent: deque[tuple[Task, bytes]] = deque()
        self.done: dict[str, list[bytes]] = {}

    def submit(self, task: Task) -> None:
        self._sent.append((task, pickle.dumps(task)))

    def forget(self) -> None:
        self._sent.clear()

    def finished(self) -> Finished:
        task, sent = self._sent.pop()
        values = [pickle.loads(sent).run() for _ in range(2)]
        assert pickle.dumps(values[0]) == pickle.dumps(values[1])
        self.done.setdefault(task.function.partition(":")[2], []).append(sent)
        return Finished(task, values[0])


def written(folder, engine: Engine, fields: dict[str, Given]) -> dict[str, bytes]:
    """The files of the arrays, by path."""
    plan, work = plan_of(ROUTES), Workspace(folder)
    crop = CropAssembly(
        plan,
        Probability(plan, {(name, "s"): field for name, field in fields.items()}),
        partial(work.temporary, plan.target, "run"),
        partial(work.array, plan.target, "run"),
        Budget(workers=2),
    )
    group = assemble_group(crop, plan.claimed, joint=True, journal=MemoryJournal(), key="key")
    ((_, outcome),) = done(engine, [group])
    assert all(outcome.objects[name] for name in ("nuc", "mito"))
    return files_of(folder)


def files_of(folder: Path) -> dict[str, bytes]:
    """Those of all arrays that other tasks read, too."""
    root = Workspace(folder).scratch(plan_of(ROUTES).target) / "run"
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and "-objects-" not in path.parent.name]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_tasks_done_twice_by_others_write_what_is_written_here(tmp_path) -> None:
    rng = np.random.default_rng(3)
    fields = {name: cloud(rng) for name in ROUTES}
    with Here() as here:
        expected = written(tmp_path / "here", here, fields)
    twice = SentTwice()
    assert written(tmp_path / "twice", twice, fields) == expected
    assert {"find_holes", "decide_bands", "find_objects", "decide_again", "write_masks"} == {*twice.done}
    for function, tasks in twice.done.items():  # by workers that were given up and live
        for sent in tasks:
            pickle.loads(sent).run()
        again = files_of(tmp_path / "twice")
        assert {path for path in again if again[path] != expected.get(path)} == set(), function
    with Here(2, in_processes=True) as processes:
        assert written(tmp_path / "processes", processes, fields) == expected


@pytest.mark.parametrize("name", ROUTES)
def test_a_route_can_be_sent(name: str) -> None:
    sent = pickle.loads(pickle.dumps(ROUTES[name]))
    assert sent == ROUTES[name]
    assert [one.method for one in sent.steps] == [one.method for one in ROUTES[name].steps]
