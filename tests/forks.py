"""Processes forked from one that has imported the package and computed nothing: a new one costs no import of torch."""

import multiprocessing
import traceback

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["udlib.workshop", "udlib.cli", "udlib.course.store", "udlib.figures.plots"])
PATIENCE = 300.0  # seconds


def call_in_fork(function, *arguments):
    """What `function(*arguments)` returns in a process of its own; what it raises there is an AssertionError here."""
    here, there = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_send, args=(there, function, arguments))
    process.start()
    there.close()
    try:
        answer, failure = here.recv() if here.poll(PATIENCE) else (None, f"no answer within {PATIENCE:.0f} s")
    except EOFError:
        answer, failure = None, "the process ended without an answer"
    if failure:
        process.kill()
    process.join()
    assert not failure, failure
    return answer


def kill_in_fork(function, *arguments):
    """The exit code of a process that calls `function(*arguments)`, which is expected to kill it."""
    process = FORKS.Process(target=function, args=arguments)
    process.start()
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode


def _send(pipe, function, arguments):
    try:
        pipe.send((function(*arguments), None))
    except BaseException:
        pipe.send((None, traceback.format_exc()))
