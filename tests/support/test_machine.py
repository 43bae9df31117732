"""What a machine lends, and work shared among its threads."""

import os
import subprocess
import sys
import threading

import pytest

from ensemble.support.machine import cores, default_memory_bytes, in_threads, memory_bytes


def test_no_more_is_lent_than_there_is():
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 1 <= cores() <= os.cpu_count()
    assert 0 < default_memory_bytes() < memory_bytes() <= physical


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items_and_few_items_are_taken_ahead(workers):
    taken, finished = [], []
    second_may_go = threading.Event()

    def items():
        for item in range(10):
            taken.append(item)
            yield item

    def work(item: int) -> int:
        if item == 0 and workers > 1:
            second_may_go.wait()  # the first item is the last to finish
        if item == 1:
            second_may_go.set()
        return item * item

    for result in in_threads(workers, work, items()):
        finished.append(result)
        assert len(taken) <= len(finished) + 2 * workers
    assert finished == [item * item for item in range(10)]


def test_what_fails_in_a_thread_is_raised_and_ends_the_rest():
    def work(item: int) -> int:
        return 1 // (item - 2)

    results = in_threads(2, work, range(1000))
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is told")
def test_a_process_ends_with_its_parent_even_one_that_is_killed() -> None:
    script = """
import multiprocessing, time
from ensemble.support.machine import end_with_parent
def child(pipe):
    end_with_parent(); pipe.send(1); time.sleep(600)
mine, its = multiprocessing.Pipe()
multiprocessing.get_context("fork").Process(target=child, args=(its,)).start()
mine.recv(); print("there", flush=True); time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "there\n"
    parent.kill()
    assert parent.stdout.read() == ""  # nobody holds the other end any more
    parent.wait()
