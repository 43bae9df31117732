"""Tasks: functions by name, and what they tell on the way."""

import pickle
import threading

import pytest

from ensemble.engine.task import Finished, Task, heard_by, tell


def test_a_task_is_a_function_by_name_that_can_be_sent() -> None:
    task = Task("math:hypot", (3, 4), "a key")
    assert task.run() == 5
    assert pickle.loads(pickle.dumps(task)).run() == 5


def test_what_a_task_raised_is_raised_by_who_asks() -> None:
    task = Task("math:sqrt", (-1,), "a key")
    assert Finished(task, 3).result() == 3
    with pytest.raises(ValueError, match="math domain"):
        Finished(task, error=ValueError("math domain error")).result()


def test_news_are_heard_in_the_thread_that_listens_and_in_no_other() -> None:
    heard: list[int] = []
    tell(1)
    with heard_by(heard.append):
        tell(2)
        other = threading.Thread(target=tell, args=(3,))
        other.start()
        other.join()
        with heard_by(lambda news: heard.append(10 * news)):
            tell(4)
        tell(5)
    tell(6)
    assert heard == [2, 40, 5]
