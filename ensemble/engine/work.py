"""Work that is made of tasks: one loop in which what a task leaves releases the next ones."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from ensemble.engine.task import Finished, Task

Outcome = TypeVar("Outcome")

Work = Generator[Sequence[Task], Finished, Outcome]
"""Yields tasks to be done besides those under way, perhaps none, and is sent the next of its own that finished."""


class Engine(Protocol):
    """Where tasks are done, ``at_once`` so many; more are kept waiting. ``hear`` is called with what one tells."""

    hear: Callable[[Task, Any], None]

    @property
    def at_once(self) -> int: ...

    @property
    def is_idle(self) -> bool:
        """Whether more could be at work than is, whatever is kept waiting."""
        ...

    def submit(self, task: Task) -> None:
        """Have a task done. ``finished`` gives it back."""
        ...

    def finished(self) -> Finished:
        """The next task that ended, whatever order they were given in; waits for it. Some task is under way."""
        ...

    def forget(self) -> None:
        """Nobody waits for the tasks any more that were given; those that have begun may still end."""
        ...


def gather(tasks: Iterable[Task], take: Callable[[Task, Any], Iterable[Task] | None]) -> Work[None]:
    """Have tasks done, and ``take`` called with each and what it returned, as they finish; it may give more to do.

    Raises what one of them raised, as soon as it does.
    """
    batch = list(tasks)
    waiting = len(batch)
    while waiting:
        finished = yield batch
        batch = list(take(finished.task, finished.result()) or ())
        waiting += len(batch) - 1


def alone(task: Task) -> Work[Any]:
    """Have one task done; what it returned."""
    finished = yield [task]
    return finished.result()


def done(engine: Engine, works: Iterable[Work[Outcome]], most: int = 1) -> Iterator[tuple[int, Outcome]]:
    """Work done: the number of each and its outcome, as they end. At most so many are under way, and no more begin than
    keep the engine busy.

    Raises what one of them raised; the others are closed, and their tasks forgotten.
    """
    coming = enumerate(works)
    under_way: dict[int, Work[Outcome]] = {}
    owners: dict[str, list[int]] = {}
    ended: list[tuple[int, Outcome]] = []

    def go_on(number: int, work: Work[Outcome], finished: Finished | None) -> None:
        try:
            tasks = next(work) if finished is None else work.send(finished)
        except StopIteration as stop:
            under_way.pop(number, None)
            ended.append((number, stop.value))
            return
        under_way[number] = work
        for task in tasks:
            owners.setdefault(task.key, []).append(number)
            engine.submit(task)

    try:
        while True:
            while len(under_way) < most and (engine.is_idle or sum(map(len, owners.values())) < 2 * engine.at_once):
                number, work = next(coming, (-1, None))
                if work is None:
                    break
                go_on(number, work, None)
            yield from ended
            ended.clear()
            if not owners:
                if not under_way:
                    return
                continue
            finished = engine.finished()
            waiting = owners.get(finished.task.key)
            if waiting is None:  # begun for somebody who failed
                continue
            number = waiting.pop(0)
            if not waiting:
                del owners[finished.task.key]
            go_on(number, under_way[number], finished)
    finally:
        if owners:
            engine.forget()
        for work in under_way.values():
            work.close()
