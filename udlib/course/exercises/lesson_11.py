"""Checks of lesson 11: the speed of the slowest part, what fits into memory, every image once, GPU-hours of a row, and
the luck of many intervals.

Each check works out on small inputs of its own what the right answer gives and what each classic mistake gives, and
compares. Functions may answer with tensors, NumPy numbers or floats.
"""

from __future__ import annotations

import math
from functools import partial

from udlib.course.exercises import called, exercise
from udlib.course.exercises.answers import compare, number, numbers

SPEEDS = ((900.0, 110.0, 4), (210.0, 130.0, 16), (400.0, 100.0, 4), (350.0, 500.0, 1))
WRONG_SPEEDS = {
    "that is the sum: an image must pass both, so the two speeds do not add up": lambda gpu, decode, workers: (
        gpu + workers * decode
    ),
    "that is one after the other: while the GPU trains, the workers decode the next "
    "batch": lambda gpu, decode, workers: 1 / (1 / gpu + 1 / (workers * decode)),
    "that is a single worker: they decode side by side": lambda gpu, decode, workers: min(gpu, decode),
    "that is the speed of the faster one, but it must wait for the other": lambda gpu, decode, workers: max(
        gpu, workers * decode
    ),
    "the workers may be faster than the GPU, and then everything waits for the GPU": lambda gpu, decode, workers: (
        workers * decode
    ),
    "that is the GPU alone, which waits where the workers are slower": lambda gpu, decode, workers: gpu,
    "more workers decode more images a second: multiply": lambda gpu, decode, workers: min(gpu, decode / workers),
}


@exercise("11.1")
def speed_of_a_pipeline(function) -> str | None:
    """`function(gpu, decode, workers)` → min(gpu, workers · decode), images per second."""
    answers = []
    for case in SPEEDS:
        value, problem = number(called(function, *case))
        if problem:
            return problem
        answers.append(value)
    for sentence, wrong in WRONG_SPEEDS.items():  # over all cases: in one of them two mistakes may agree
        if all(math.isclose(value, wrong(*case), rel_tol=1e-4) for value, case in zip(answers, SPEEDS)):
            return sentence
    return next(
        (
            problem
            for value, (gpu, decode, workers) in zip(answers, SPEEDS)
            if (problem := compare(value, min(gpu, workers * decode), {}))
        ),
        None,
    )


@exercise("11.2")
def side_that_fits(function) -> str | None:
    """`function(images, free)` → the largest whole side whose uint8 RGB images take at most half of `free` bytes."""
    for images, free in ((5011, 11e9), (82783, 80e9), (1000, 6e6)):
        answer, problem = number(called(function, images, free))
        if problem:
            return problem
        side = partial(_side, images, free)
        right = math.floor(side())
        wrong = {
            math.floor(side(1.0)): "that fills all of the free memory: half of it is for the networks and the steps",
            math.floor(
                side(width=4)
            ): "that takes 4 bytes a value: decoded images are kept as uint8, one byte a value, and become "
            "float32 in the batch",
            math.floor(side(1.0, width=4)): "that takes 4 bytes a value, and all of the free memory",
            math.floor(side(channels=1)): "that is one value a pixel: RGB has three",
            math.floor(side(1.0, channels=1)): "that is one value a pixel, and all of the free memory",
            math.floor(side() ** 2): "that is the number of pixels: the side is its square root",
            side(): "a side is a whole number of pixels: round down",
            math.ceil(side()): "rounded up, it takes a little more than the half: round down",
            math.floor(math.sqrt(free / 2 / 3)): "that is the side of a single image: all of them must fit",
        }
        if problem := compare(answer, right, {value: why for value, why in wrong.items() if value != right}):
            return problem
    return None


def _side(images: int, free: float, share: float = 0.5, channels: int = 3, width: int = 1) -> float:
    """The side at which so many images take this share of `free` bytes."""
    return math.sqrt(share * free / (channels * width * images))


@exercise("11.3")
def mean_over_processes(function) -> str | None:
    """`function(gathered, count)` → the mean over `count` images, each once.

    Process r holds rows r, r + P, … of the padded order.
    """
    for values, processes in (
        ([5.0, 1.0, 4.0, 2.0, 9.0, 7.0, 3.0], 3),
        ([2.0, 8.0, 1.0, 6.0, 3.0], 4),
        ([4.0, 1.0, 7.0, 2.0], 2),
        ([6.0, 2.5], 1),
    ):
        count, rounds = len(values), math.ceil(len(values) / processes)
        padded = [values[k % count] for k in range(rounds * processes)]
        gathered = [padded[rank::processes] for rank in range(processes)]
        answer, problem = number(called(function, [list(part) for part in gathered], count))
        if problem:
            return problem
        full = count // processes
        by_rank = [value for part in gathered for value in part]
        wrong = {
            sum(padded)
            / len(padded): "the first images count twice: the last round was filled up with them, so that all "
            "processes have equally many",
            sum(by_rank[:count])
            / count: "cut off too early: the values of process 1 follow those of process 0, and not the next image. "
            "Put the rounds in order first, then cut",
            sum(padded) / count: "the sum includes the images of the padding, but the divisor does not",
            sum(sum(part[:full]) for part in gathered)
            / max(full * processes, 1): "the images of the incomplete last round are left out: they count too",
            sum(gathered[0]) / len(gathered[0]): "that is process 0 alone",
        }
        right = sum(values) / count
        if problem := compare(
            answer, right, {value: why for value, why in wrong.items() if not math.isclose(value, right)}
        ):
            return problem
    return None


@exercise("11.4")
def gpu_hours_of_a_row(function) -> str | None:
    """`function(images, epochs, seeds, student, teacher)` → hours of `seeds` distilled students and their teachers."""
    for images, epochs, seeds, student, teacher in ((5000, 20, 5, 900.0, 210.0), (80000, 40, 3, 1100.0, 85.0)):
        answer, problem = number(called(function, images, epochs, seeds, student, teacher))
        if problem:
            return problem
        image_steps = images * epochs * seeds  # images that go through a step
        learn, ask, train = 1 / student, 1 / (3 * teacher), 1 / teacher
        right = image_steps * (learn + ask + train) / 3600
        wrong = {
            3600 * right: "that is in seconds: an hour has 3600",
            60 * right: "that is in minutes: divide by 60 once more",
            right / seeds: "that is one seed: each seed is a training of its own",
            image_steps * (learn + ask) / 3600: "the teachers must be trained too, one for each seed",
            image_steps
            * (learn + train)
            / 3600: "in each of the student's steps the teacher answers: a forward pass, a third of a step",
            image_steps
            * (learn + 3 * train + train)
            / 3600: "the teacher's forward pass is a third of its training step, not three of them",
            image_steps
            * (learn + 2 * train)
            / 3600: "in the student's steps the teacher only answers: a third of its training step",
            (image_steps * (learn + ask) + image_steps / seeds * train)
            / 3600: "each seed has its own teacher here: teacher and student share it",
            image_steps
            * learn
            / 3600: "that is the students alone: a teacher answers in each step, and was trained before",
            image_steps
            / (student + teacher)
            / 3600: "speeds do not add up, times do: 1 / student + 1 / teacher is the time of an image",
            right / epochs: "that is a single epoch",
        }
        if problem := compare(answer, right, wrong):
            return problem
    return None


@exercise("11.5")
def luck_of_many(function) -> str | None:
    """`function(m, miss)` → (chance that ≥ 1 of m intervals misses, the rate of each at which it is `miss` again)."""
    for m, miss in ((15, 0.05), (6, 0.1)):
        value = called(function, m, miss)
        (chance, rate), problem = numbers(value, "(chance of at least one, rate of each interval)", 2)
        if problem:
            return problem
        right = 1 - (1 - miss) ** m
        problem = compare(
            chance,
            right,
            {
                m * miss: "m · miss is the number of misses to expect, and it can exceed 1: the chance of at least "
                "one miss is 1 minus the chance of none",
                (1 - miss) ** m: "this is the chance that none misses: take 1 minus it",
                miss**m: "this is the chance that all of them miss",
                1 - miss**m: "this is the chance that not all of them miss: at least one is 1 minus none",
                m * miss * (1 - miss) ** (m - 1): "this is the chance that exactly one misses: two or more count too",
                miss: "this is the chance of a single interval: there are m, and each may miss",
            },
        )
        problem = problem or compare(
            rate,
            1 - (1 - miss) ** (1 / m),
            {
                miss / m: "the chance is right, and miss / m is Bonferroni's rate: always safe, but a little too "
                "strict for independent intervals. Solve 1 − (1 − r)^m = miss for r",
                (1 - miss)
                ** (1 / m): "the chance is right, but this is how often each must *not* miss: take 1 minus it",
                miss ** (1 / m): "the chance is right, but this is the root of the miss: it is the chance of *no* "
                "miss "
                "that is multiplied",
                miss: "the chance is right, but a rate of `miss` for each leads to that chance, not to `miss`",
            },
        )
        if problem:
            return problem
    return None
