import multiprocessing
import os
import sys
import threading
import time

import pytest
import torch

from udlib.datasets import threads
from udlib.datasets.threads import LEAST, one_thread, run_in_portions


@pytest.fixture(autouse=True)
def usual_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 3, 50])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_each_portion_is_worked_on_once(count, size):
    torch.set_num_threads(size)
    done = []
    run_in_portions(done.append, range(count))
    assert sorted(done) == list(range(count)) and torch.get_num_threads() == size


def test_several_threads_work_and_each_computes_alone():
    torch.set_num_threads(2)
    both, workers = threading.Barrier(2, timeout=60), set()

    def work(portion):
        if threading.get_ident() not in workers:
            workers.add(threading.get_ident())
            both.wait()  # passes when a second thread has come
        assert torch.get_num_threads() == 1

    run_in_portions(work, range(2 * LEAST))
    assert len(workers) == 2 and threading.get_ident() in workers


def test_a_thread_that_is_held_up_does_one_portion_and_the_others_do_the_rest():
    torch.set_num_threads(2)
    by_caller, by_helper, rest_is_done = [], [], threading.Event()
    helper_has_begun = threading.Event()

    def work(portion):
        if threading.current_thread() is threading.main_thread():
            helper_has_begun.wait(60)
            by_caller.append(portion)
            if len(by_caller) == 19:
                rest_is_done.set()
        else:
            by_helper.append(portion)
            helper_has_begun.set()
            assert rest_is_done.wait(60)

    run_in_portions(work, range(20))
    assert (len(by_caller), len(by_helper)) == (19, 1)


def test_a_helper_that_gets_no_core_is_not_waited_for():
    torch.set_num_threads(2)
    pool, release = threads._helpers(), threading.Event()
    blockers = [pool.submit(release.wait, 60) for _ in range(os.cpu_count() or 1)]
    try:
        done = []
        run_in_portions(done.append, range(20))
        assert done == list(range(20)) and not any(blocker.done() for blocker in blockers)
    finally:
        release.set()


def test_few_portions_are_left_to_the_calling_thread():
    torch.set_num_threads(4)
    workers = set()
    run_in_portions(lambda _: (workers.add(threading.get_ident()), time.sleep(0.01)), range(2 * LEAST - 1))
    assert workers == {threading.get_ident()}


@pytest.mark.parametrize("size", [1, 3])
def test_an_error_in_a_portion_is_raised_and_leaves_the_number_of_threads_as_it_was(size):
    torch.set_num_threads(size)
    with pytest.raises(ZeroDivisionError):
        run_in_portions(lambda portion: 1 // portion, [*range(1, 30), 0])
    assert torch.get_num_threads() == size


def test_an_error_of_a_helper_is_raised_in_the_calling_thread():
    torch.set_num_threads(2)
    helper_has_failed = threading.Event()

    def work(portion):
        if threading.current_thread() is threading.main_thread():
            helper_has_failed.wait(60)
        else:
            helper_has_failed.set()
            raise RuntimeError("a helper fails")

    with pytest.raises(RuntimeError, match="a helper fails"):
        run_in_portions(work, range(20))
    assert torch.get_num_threads() == 2


def test_one_thread_ends_with_its_block():
    torch.set_num_threads(3)
    with pytest.raises(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 3


def count_in_child(send):
    torch.set_num_threads(2)
    done = []
    run_in_portions(done.append, range(20))
    send.send(sorted(done))


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_forked_process_has_helpers_of_its_own():
    torch.set_num_threads(2)
    run_in_portions(id, range(20))  # this process has helpers, which a fork does not copy
    receive, send = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=count_in_child, args=(send,))
    child.start()
    assert receive.poll(60) and receive.recv() == list(range(20))
    child.join(60)
    assert child.exitcode == 0
