"""What all tests share."""

import pytest
from tiny_voc import write_tiny_voc


@pytest.fixture(scope="session", autouse=True)
def no_progress_bars():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UDLIB_PROGRESS", "0")
        yield


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A tiny data set in VOC layout, for the tests of a module to share."""
    return write_tiny_voc(tmp_path_factory.mktemp("data") / "tiny")
