"""The photographs of `photos`, which are in no commit: where they lie for the tests, and the mark of tests that need them."""

import os
from pathlib import Path

import pytest

import udlib
from udlib.datasets.photos import photos_available

BESIDE = Path(udlib.__file__).resolve().parents[2] / "shared" / "photos"  # beside a checkout


def _photographs():
    root = Path(os.environ.get("UDLIB_PHOTOS") or BESIDE)
    return root if photos_available(root) else None


PHOTOGRAPHS = _photographs()  # their folder, or None; read here, since tests change the environment
needs_photographs = pytest.mark.skipif(PHOTOGRAPHS is None, reason="needs the photographs of photos: set UDLIB_PHOTOS")
