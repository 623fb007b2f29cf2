"""The `udlib` command in a process of its own, to be killed: forked from one that has imported everything and computed
nothing, so that its life is work from the first moment to the last."""

import os
import threading
import time
from contextlib import redirect_stderr, redirect_stdout

import torch
from forks import FORKS, PATIENCE
from tqdm import tqdm

from udlib import cli


def udlib_process(words, log, prepare, environment, kill_after=PATIENCE):
    """Run `udlib WORDS`, and end it by SIGKILL after so many seconds: `(exit code, seconds that it ran)`.

    `prepare()` is called in the process before the clock starts; what the command says is added to the file `log`.
    """
    here, there = FORKS.Pipe(duplex=False)
    settings, threads = {"UDLIB_PROGRESS": "0", **environment}, torch.get_num_threads()
    process = FORKS.Process(target=_run, args=(list(map(str, words)), log, prepare, settings, threads, there))
    process.start()
    there.close()
    here.recv()
    started = time.monotonic()
    process.join(kill_after)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode, time.monotonic() - started


def _run(words, log, prepare, settings, threads, ready):
    os.environ.update(settings)
    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # its own lock is the system's, and would outlive a kill
    with log.open("a", encoding="utf-8") as out, redirect_stdout(out), redirect_stderr(out):
        prepare()
        ready.send("imported")
        cli.main(words)
