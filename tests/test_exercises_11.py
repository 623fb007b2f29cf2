import math
import statistics

import numpy as np
import pytest
import torch

from udlib.course.exercises import NotAttempted, check
from udlib.course.exercises.lesson_11 import (
    gpu_hours_of_a_row,
    luck_of_many,
    mean_over_processes,
    side_that_fits,
    speed_of_a_pipeline,
)


def hours(learn=1.0, ask=1 / 3, train=1.0, unit=3600.0, of_seeds=True):
    def function(images, epochs, seeds, student, teacher):
        per_image = learn / student + (ask + train) / teacher
        return images * epochs * (seeds if of_seeds else 1) * per_image / unit

    return function


def flat(gathered):
    return [value for part in gathered for value in part]


def in_turns(gathered):
    return [value for turn in zip(*gathered) for value in turn]


def luck(m, miss):
    return 1 - (1 - miss) ** m, 1 - (1 - miss) ** (1 / m)


@pytest.mark.parametrize(
    "check_of, answer",
    [
        (speed_of_a_pipeline, lambda gpu, decode, workers: min(gpu, workers * decode)),
        (speed_of_a_pipeline, lambda *a: np.minimum(a[0], a[1] * a[2])),
        (speed_of_a_pipeline, lambda *a: torch.tensor(a[0]).minimum(torch.tensor(a[1] * a[2]))),
        (side_that_fits, lambda images, free: int((free / 2 / (3 * images)) ** 0.5)),
        (side_that_fits, lambda images, free: math.isqrt(int(free // (6 * images)))),
        (side_that_fits, lambda images, free: np.floor(np.sqrt(free / 6 / images))),
        (mean_over_processes, lambda gathered, count: sum(in_turns(gathered)[:count]) / count),
        (
            mean_over_processes,
            lambda gathered, count: statistics.fmean(
                gathered[k % len(gathered)][k // len(gathered)] for k in range(count)
            ),
        ),
        (mean_over_processes, lambda gathered, count: torch.tensor(gathered).T.flatten()[:count].mean()),
        (mean_over_processes, lambda gathered, count: np.array(gathered).T.ravel()[:count].mean()),
        (gpu_hours_of_a_row, hours()),
        (gpu_hours_of_a_row, lambda *a: np.float64(hours()(*a))),
        (
            gpu_hours_of_a_row,
            lambda images, epochs, seeds, student, teacher: (
                seeds * epochs * images * (1 / student + 4 / (3 * teacher)) / 60 / 60
            ),
        ),
        (luck_of_many, luck),
        (luck_of_many, lambda *a: np.array(luck(*a))),
        (luck_of_many, lambda m, miss: (-np.expm1(m * np.log1p(-miss)), -np.expm1(np.log1p(-miss) / m))),
    ],
)
def test_a_right_answer_passes_whatever_it_is_made_with(check_of, answer):
    assert check_of(answer) is None


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda gpu, decode, workers: gpu + workers * decode, "that is the sum"),
        (lambda gpu, decode, workers: 1 / (1 / gpu + 1 / (workers * decode)), "one after the other"),
        (lambda gpu, decode, workers: min(gpu, decode), "a single worker"),
        (lambda gpu, decode, workers: max(gpu, workers * decode), "the speed of the faster one"),
        (lambda gpu, decode, workers: workers * decode, "everything waits for the GPU"),
        (lambda gpu, decode, workers: gpu, "the GPU alone"),
        (lambda gpu, decode, workers: min(gpu, decode / workers), "multiply"),
        (lambda gpu, decode, workers: 1.0, "expected 440"),
    ],
)
def test_each_mistake_about_the_speed_is_named(answer, words):
    assert words in speed_of_a_pipeline(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda images, free: int((free / (3 * images)) ** 0.5), "all of the free memory"),
        (lambda images, free: int((free / 2 / (12 * images)) ** 0.5), "4 bytes a value"),
        (lambda images, free: int((free / (12 * images)) ** 0.5), "4 bytes a value, and all"),
        (lambda images, free: int((free / 2 / images) ** 0.5), "one value a pixel"),
        (lambda images, free: int(free / 2 / (3 * images)), "number of pixels"),
        (lambda images, free: (free / 2 / (3 * images)) ** 0.5, "round down"),
        (lambda images, free: math.ceil((free / 2 / (3 * images)) ** 0.5), "round down"),
        (lambda images, free: int((free / 6) ** 0.5), "a single image"),
        (lambda images, free: 7, "expected 604"),
    ],
)
def test_each_mistake_about_memory_is_named(answer, words):
    assert words in side_that_fits(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda gathered, count: statistics.fmean(flat(gathered)), "count twice"),
        (lambda gathered, count: sum(flat(gathered)[:count]) / count, "cut off too early"),
        (lambda gathered, count: sum(flat(gathered)) / count, "the divisor does not"),
        (
            lambda gathered, count: statistics.fmean(flat([part[: count // len(gathered)] for part in gathered])),
            "incomplete last round",
        ),
        (lambda gathered, count: statistics.fmean(gathered[0]), "process 0 alone"),
        (lambda gathered, count: statistics.fmean(map(statistics.fmean, gathered)), "count twice"),
        (lambda gathered, count: 0.0, "expected 4.429"),
    ],
)
def test_each_mistake_about_the_mean_is_named(answer, words):
    assert words in mean_over_processes(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (hours(unit=1), "in seconds"),
        (hours(unit=60), "in minutes"),
        (hours(of_seeds=False), "one seed"),
        (hours(train=0), "teachers must be trained too"),
        (hours(ask=0), "a forward pass, a third of a step"),
        (hours(ask=3), "not three of them"),
        (hours(ask=1), "only answers"),
        (hours(ask=0, train=0), "the students alone"),
        (
            lambda n, e, s, student, teacher: n * e * (s * (1 / student + 1 / (3 * teacher)) + 1 / teacher) / 3600,
            "its own teacher",
        ),
        (lambda n, e, s, student, teacher: n * e * s / (student + teacher) / 3600, "speeds do not add up"),
        (lambda n, e, *a: hours()(n, e, *a) / e, "a single epoch"),
        (lambda *a: 0.0, "expected"),
    ],
)
def test_each_mistake_about_gpu_hours_is_named(answer, words):
    assert words in gpu_hours_of_a_row(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda m, miss: (m * miss, luck(m, miss)[1]), "number of misses to expect"),
        (lambda m, miss: ((1 - miss) ** m, luck(m, miss)[1]), "none misses"),
        (lambda m, miss: (miss**m, luck(m, miss)[1]), "all of them miss"),
        (lambda m, miss: (1 - miss**m, luck(m, miss)[1]), "not all of them"),
        (lambda m, miss: (m * miss * (1 - miss) ** (m - 1), luck(m, miss)[1]), "exactly one"),
        (lambda m, miss: (miss, luck(m, miss)[1]), "a single interval"),
        (lambda m, miss: (luck(m, miss)[0], miss / m), "Bonferroni"),
        (lambda m, miss: (luck(m, miss)[0], (1 - miss) ** (1 / m)), "must *not* miss"),
        (lambda m, miss: (luck(m, miss)[0], miss ** (1 / m)), "the root of the miss"),
        (lambda m, miss: (luck(m, miss)[0], miss), "leads to that chance"),
        (lambda m, miss: (0.3, 0.3), "expected"),
        (lambda m, miss: luck(m, miss)[0], "a pair"),
    ],
)
def test_each_mistake_about_luck_is_named(answer, words):
    assert words in luck_of_many(answer)


@pytest.mark.parametrize("check_of", [speed_of_a_pipeline, side_that_fits, mean_over_processes, gpu_hours_of_a_row])
def test_what_is_no_number_is_said_and_dots_are_not_attempted(check_of):
    assert "end it with return" in check_of(lambda *_: None)
    assert "expected a single number" in check_of(lambda *_: "many")
    with pytest.raises(NotAttempted):
        check_of(lambda *_: ...)


def test_half_an_answer_about_luck_is_not_attempted_yet():
    with pytest.raises(NotAttempted):
        luck_of_many(lambda *_: (0.5, ...))


def test_the_examples_are_handed_over_as_copies():
    def spoiler(gathered, count):
        found = sum(in_turns(gathered)[:count]) / count
        gathered.clear()
        return found

    assert mean_over_processes(spoiler) is None


def test_the_lesson_asks_by_number(capsys):
    check("11.2", lambda images, free: int((free / 6 / images) ** 0.5))
    assert capsys.readouterr().out == "Exercise 11.2: correct.\n"
