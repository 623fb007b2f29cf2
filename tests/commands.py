"""The `udlib` command, run in this process."""

import contextlib
import io
import sys

import pytest

from udlib import cli


def udlib_command(*words):
    """`(exit code, stdout, stderr)` of `udlib WORDS`."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["udlib", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
            cli.main()
    finally:
        sys.argv = before
    return stop.value.code or 0, out.getvalue(), err.getvalue()
