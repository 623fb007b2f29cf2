import io

import pytest

import udlib.progress
from udlib.progress import track


@pytest.fixture
def screen(monkeypatch):
    """What a bar writes, and a bar that redraws at every change."""
    stream = io.StringIO()
    plain = udlib.progress.tqdm

    def tqdm(*args, **options):
        return plain(*args, **{**options, "file": stream, "mininterval": 0})

    monkeypatch.setattr(udlib.progress, "tqdm", tqdm)
    monkeypatch.delenv("UDLIB_PROGRESS", raising=False)
    return stream


def test_iterating_gives_every_item_once_in_order_and_shows_count_rate_and_time_left(screen):
    assert list(track(iter(range(5)), total=5, description="reading")) == [0, 1, 2, 3, 4]
    last = screen.getvalue().split("\r")[-1]
    assert "reading: 100%" in last and "5/5" in last and "img/s" in last and "<" in last


def test_the_total_of_a_sized_iterable_is_its_length(screen):
    assert list(track("abc")) == ["a", "b", "c"]
    assert "3/3" in screen.getvalue()


def test_a_bar_driven_by_hand_shows_its_unit_and_numbers(screen):
    with track(total=10, description="runs", unit="run") as bar:
        bar.set(loss=0.123456)
        bar.update(4)
        bar.update()
    last = screen.getvalue().split("\r")[-1]
    assert "5/10" in last and "run/s" in last and "loss=0.1235" in last


def test_one_variable_silences_every_bar_and_changes_nothing_else(screen, monkeypatch):
    monkeypatch.setenv("UDLIB_PROGRESS", "0")
    assert list(track([1, 2])) == [1, 2]
    with track(total=2) as bar:
        bar.update(2)
        bar.set(loss=1.0)
    assert screen.getvalue() == ""


def test_a_silent_bar_shows_nothing(screen):
    assert list(track([1, 2], silent=True)) == [1, 2]
    assert screen.getvalue() == ""


def test_an_error_inside_passes_through_and_closes_the_bar(screen):
    with pytest.raises(ZeroDivisionError):
        with track(total=2) as bar:
            bar.update()
            _ = 1 / 0
    assert screen.getvalue().endswith("\n")


def test_units_done_before_are_shown_and_count_for_neither_rate_nor_time_left(screen):
    with track(total=10, initial=6) as bar:
        bar.update(2)
        assert bar.bar.format_dict["initial"] == 6
    assert "6/10" in screen.getvalue() and "8/10" in screen.getvalue().split("\r")[-1]
