"""One loop: what a task leaves releases the next ones."""

from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.engine.here import Here
from ensemble.engine.task import Finished, Task
from ensemble.engine.work import Work, alone, done, gather


def doubling(number: int) -> Task:
    return Task("tests.engine.jobs:double", (number,), f"double {number}")


class AnyOrder:
    """An engine whose tasks end in an order of one's choice."""

    def __init__(self, order: Sequence[int], at_once: int = 2) -> None:
        self.at_once, self.is_idle, self.hear = at_once, False, lambda task, news: None
        self._order, self.under_way, self.most = deque(order), [], 0

    def submit(self, task: Task) -> None:
        self.under_way.append(task)
        self.most = max(self.most, len(self.under_way))

    def forget(self) -> None:
        self.under_way.clear()

    def finished(self) -> Finished:
        place = self._order.popleft() if self._order else 0
        task = self.under_way.pop(place % len(self.under_way))
        return Finished(task, task.run())


def summing(numbers: Sequence[int]) -> Work[int]:
    """The sum of the doubles of doubles, the second ones released by the first."""
    found: list[int] = []
    yield from gather(map(doubling, numbers), lambda task, value: found.append(value))
    total = 0
    for number in found:
        total += yield from alone(doubling(number))
    return total


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6),
    st.lists(st.integers(0, 99), max_size=60),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_every_work_is_done_in_whatever_order_its_tasks_end(works, order, most, at_once) -> None:
    engine = AnyOrder(order, at_once)
    outcomes = dict(done(engine, map(summing, works), most))
    assert outcomes == {number: 4 * sum(work) for number, work in enumerate(works)}
    assert not engine.under_way


def test_no_more_work_is_begun_than_keeps_the_engine_busy() -> None:
    begun: list[int] = []

    def noting(number: int) -> Work[None]:
        begun.append(number)
        yield from alone(doubling(number))

    outcomes = done(AnyOrder([], at_once=1), map(noting, range(9)), most=9)
    next(outcomes)
    assert len(begun) <= 3
    assert len(list(outcomes)) == 8
    assert begun == list(range(9))


def test_what_fails_ends_all_and_closes_what_is_under_way() -> None:
    closed: list[str] = []

    def waiting() -> Work[None]:
        try:
            yield [doubling(1)]
            yield []
        finally:
            closed.append("closed")

    def failing() -> Work[None]:
        yield from alone(Task("tests.engine.jobs:fails", ("broken",), "fails"))

    with Here() as engine, pytest.raises(Exception, match="broken"):
        list(done(engine, [waiting(), failing()], most=2))
    assert closed == ["closed"]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_engine_is_there_for_others_after_work_that_failed(workers: int) -> None:
    def failing() -> Work[None]:
        yield from gather([Task("tests.engine.jobs:fails", ("broken",), "fails"), *map(doubling, range(9))], print)

    with Here(workers) as engine:
        with pytest.raises(Exception, match="broken"):
            list(done(engine, [failing()]))
        assert dict(done(engine, [summing([1, 2]), summing([3])], most=2)) == {0: 12, 1: 12}


def test_work_may_go_on_after_a_task_that_failed() -> None:
    def mending() -> Work[str]:
        try:
            yield from alone(Task("tests.engine.jobs:fails", ("broken",), "fails"))
        except Exception as error:
            value = yield from alone(doubling(4))
            return f"{error}, then {value}"
        return "nothing failed"

    with Here() as engine:
        assert list(done(engine, [mending()])) == [(0, "broken, then 8")]
