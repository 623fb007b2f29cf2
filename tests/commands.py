"""The `udlib` command, run in this process, and what a training by it leaves."""

import contextlib
import csv
import io
import json
import signal

import pytest

from udlib import cli
from udlib.training.checkpoints import load_checkpoint


def udlib_command(*words):
    """`(exit code, stdout, stderr)` of `udlib WORDS`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        cli.main([*map(str, words)])
    return stop.value.code or 0, out.getvalue(), err.getvalue()


@contextlib.contextmanager
def plain_terminal():
    """The command as in a wide terminal without colours, with the settings of a fresh shell, and open to Ctrl-C."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"UDLIB_PROGRESS": "0", "COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}.items():
            patch.setenv(name, value)
        for name in ("UDLIB_PROFILE", "UDLIB_MODEL"):
            patch.delenv(name, raising=False)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
        yield
        signal.signal(signal.SIGINT, before)


def outcome(folder):
    """All that a repeated training must leave alike, bit for bit, in the folder of its model: weights (by their SHA-256),
    calibrator, metrics and settings, the log without its times, and no other file."""
    _, state = load_checkpoint(folder)
    with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
        log = [
            {name: value for name, value in row.items() if name not in ("seconds", "images_per_second")}
            for row in csv.DictReader(file)
        ]
    said = json.dumps(
        {name: state[name] for name in ("calibrator", "metrics", "training")}
    )  # as text: NaN equals itself
    return {
        "weights": state["sha256"],
        "said": said,
        "log": log,
        "files": sorted(path.name for path in folder.iterdir()),
    }
