"""Work in small portions on several threads, so that a thread which gets little time does not hold up the others."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

Portion = TypeVar("Portion")
LEAST = 4  # portions for each thread: with fewer, the wait for another thread costs more than it saves


def run_in_portions(work: Callable[[Portion], object], portions: Iterable[Portion]) -> None:
    """Call `work` once for each portion, on as many threads as PyTorch uses.

    The calling thread works too, and each thread takes the next portion when it is free. A thread whose core is also
    used by another program does few portions, and the other threads do the rest. PyTorch's own loops behave
    differently: they divide every small step into equal parts and wait for all of them, so beside a busy program
    every step waits for the slowest thread. Therefore one thread alone computes each portion.

    Args:
        work: A function of one portion. It must not depend on the order of the portions.
        portions: At least `LEAST` for each thread; with fewer, fewer threads are used.

    Raises:
        Exception: The first error of `work`. Portions that no thread has begun by then are left out.
    """
    waiting = deque(portions)

    def work_until_empty() -> None:
        torch.set_num_threads(1)  # in a helper: for PyTorch's loops inside `work`
        while True:
            try:
                portion = waiting.popleft()  # atomic, so no portion is taken twice
            except IndexError:
                return
            work(portion)

    count = min(torch.get_num_threads(), len(waiting) // LEAST) - 1
    with one_thread():
        helpers = [_helpers().submit(work_until_empty) for _ in range(count)]
        try:
            work_until_empty()
        finally:
            waiting.clear()
            # A helper that has not begun has nothing left to do: cancel it, rather than wait until it gets a core.
            running = [helper for helper in helpers if not helper.cancel()]
            wait(running)
    for helper in running:
        helper.result()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute on the calling thread alone until the end of the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def _helpers() -> ThreadPoolExecutor:
    """Threads that are kept from call to call, since a new thread must first wait for a core."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="portions")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # threads do not survive a fork
