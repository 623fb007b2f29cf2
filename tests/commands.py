"""The `udlib` command, run in this process."""

import contextlib
import io

import pytest

from udlib import cli


def udlib_command(*words):
    """`(exit code, stdout, stderr)` of `udlib WORDS`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        cli.main([*map(str, words)])
    return stop.value.code or 0, out.getvalue(), err.getvalue()
