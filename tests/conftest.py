"""What all tests share."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_progress_bars():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UDLIB_PROGRESS", "0")
        yield
