"""Counting as tasks: processes that open the zip themselves find what is found here."""

import pickle

from ensemble.engine.here import Here
from ensemble.engine.task import Finished, Task
from ensemble.submission import counting
from ensemble.submission.checking import check
from tests.support.small_submission import TARGETS, cut_chunk, write, zipped


class Backwards:
    """An engine that sends tasks, and does the last one first."""

    at_once = 9
    is_idle = False

    def __init__(self) -> None:
        self.hear = lambda task, news: None
        self._sent: list[tuple[Task, bytes]] = []
        self.done: list[str] = []

    def submit(self, task: Task) -> None:
        self._sent.append((task, pickle.dumps(task)))

    def forget(self) -> None:
        self._sent.clear()

    def finished(self) -> Finished:
        task, sent = self._sent.pop()
        self.done.append(task.what)
        return Finished(task, pickle.loads(sent).run())


def test_whoever_counts_in_whatever_order_the_report_is_the_same(tmp_path, monkeypatch) -> None:
    root = write(tmp_path / "s", attributes={"consistency": "joint"})
    cut_chunk(root)
    place = zipped(root)
    expected = check(place, TARGETS)
    assert expected.faults
    monkeypatch.setattr(counting, "TASK_VOXELS", 1)
    engine = Backwards()
    assert check(place, TARGETS, engine=engine) == expected
    assert {*engine.done} == {"count-blocks", "count-objects"}
    with Here(2, in_processes=True) as processes:
        assert check(place, TARGETS, engine=processes) == expected


def test_objects_of_masks_are_counted_as_tasks_of_their_own(tmp_path) -> None:
    from ensemble.submission.writer import create_array

    root = write(tmp_path / "s")
    target = TARGETS[0]
    mask = create_array(root, target, "mito", "uint8")
    mask[target.grid.box] = 1
    engine = Backwards()
    report = check(zipped(root), TARGETS, engine=engine)
    assert report.arrays[target.group]["mito"].objects == 1
    assert "count-objects" in engine.done
