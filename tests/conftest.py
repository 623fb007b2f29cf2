"""What all tests share."""

import pytest
from commands import plain_terminal
from tiny_voc import write_tiny_voc


@pytest.fixture(scope="session", autouse=True)
def no_progress_bars():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UDLIB_PROGRESS", "0")
        yield


@pytest.fixture(scope="module")
def terminal():
    """A plain terminal, for the tests of commands in a module: `pytestmark = pytest.mark.usefixtures("terminal")`."""
    with plain_terminal():
        yield


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A tiny data set in VOC layout, for the tests of a module to share."""
    return write_tiny_voc(tmp_path_factory.mktemp("data") / "tiny")
