"""Checks of the exercises: each recognises the right answer, and names the classic mistakes.

A lesson calls `check("02.1", answer)`; the check of that number lives in the module of its lesson. Checks see the
learner's function or value only, never the notebook's data, so that tests can hand them every known mistake.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from udlib.course.exercises.calls import call_in_words, copied, remedy
from udlib.statistics import paired_difference

Checker = Callable[..., str | None]
_CHECKERS: dict[str, Checker] = {}
_last_call: list[str] = []  # what the learner's function was called with last, in words


class NotAttempted(Exception):
    """The answer still holds the `...` of the exercise."""


def exercise(number: str) -> Callable[[Checker], Checker]:
    """Register the check of one exercise. It returns None for a right answer, else a sentence about the mistake."""

    def register(checker: Checker) -> Checker:
        _CHECKERS[number] = checker
        return checker

    return register


def check(number: str, *answers) -> None:
    """Print whether the answers to an exercise are right, and if not, which mistake they hold and on which example.

    A wrong answer never raises.

    Args:
        number: "lesson.exercise", for example "02.1".
        answers: The learner's function or value.

    Raises:
        ValueError: For an unknown number.
    """
    import_module(f"udlib.course.exercises.lesson_{number.split('.')[0]}")
    if number not in _CHECKERS:
        raise ValueError(f"there is no exercise {number}: this lesson has {', '.join(sorted(_CHECKERS))}")
    _last_call.clear()
    try:
        if any(answer is ... for answer in answers):
            raise NotAttempted
        problem = _CHECKERS[number](*answers)
    except NotAttempted:
        print(f"Exercise {number}: not attempted yet. Replace the ... above, then run both cells again.")
        return
    except Exception as error:
        problem = remedy(error)
    if problem is None:
        print(f"Exercise {number}: correct.")
    else:
        print(f"Exercise {number}: not yet, {problem}", *_last_call, sep="\n")


def called(function: Callable, *arguments):
    """Apply the learner's function to copies of the arguments; one that still returns `...` counts as not attempted."""
    _last_call[:] = [call_in_words(function, arguments)]
    value = function(*map(copied, arguments))
    if value is ...:
        raise NotAttempted
    return value


def check_guess(name: str, guess, measured: float, unit: str = "", kind: str = "measured") -> None:
    """Compare a prediction, written before the experiment, with the outcome, and print how close it is.

    Args:
        name: What was predicted, in words.
        guess: The prediction; None or `...` where there is none.
        measured: The outcome.
        unit: Unit of both, with a leading space.
        kind: How the outcome came about, for example "measured" or "computed".
    """
    if guess is None or guess is ...:
        print(f"{name}: {kind} {measured:.3g}{unit}. You wrote no guess; next time, write one first.")
        return
    try:
        number = float(guess)
    except (TypeError, ValueError):
        print(f"{name}: {kind} {measured:.3g}{unit}. Your guess, {guess!r}, is not one number; next time, write one.")
        return
    distance = abs(number - measured)
    verdict = (
        "very close"
        if distance <= 0.05 * abs(measured)
        else "in the right region"
        if distance <= 0.25 * abs(measured)
        else "within a factor of two"
        if abs(measured) <= 2 * abs(number) <= 4 * abs(measured) and number * measured > 0
        else "the right size, with the wrong sign"
        if abs(number + measured) <= 0.25 * abs(measured)
        else "far off: what did you expect, and why?"
    )
    print(f"{name}: you guessed {number:.3g}{unit}, {kind} is {measured:.3g}{unit}: {verdict}")


def check_choice(name: str, guess, measured: Mapping[float, Sequence[float]], higher_is_better: bool = True) -> None:
    """Print which setting has the best mean, and whether the predicted one differs from it.

    Args:
        name: What was predicted, in words.
        guess: The predicted setting; None or `...` where there is none.
        measured: Each setting's values, paired by seed; the difference gets a paired t interval.
        higher_is_better: Whether the highest mean wins.
    """
    sign = 1 if higher_is_better else -1
    ranked = sorted(measured, key=lambda setting: -sign * sum(measured[setting]) / len(measured[setting]))
    best = ranked[0]
    if guess is None or guess is ...:
        print(f"{name}: best on average is {best:g}. You wrote no guess; next time, write one first.")
        return
    try:
        guess = float(guess)
    except (TypeError, ValueError):
        print(f"{name}: best on average is {best:g}. Your guess, {guess!r}, is not one number; next time, write one.")
        return
    if guess not in measured:
        print(
            f"{name}: {guess:g} was not trained: guess one of {', '.join(f'{setting:g}' for setting in sorted(measured))}"
        )
    elif guess == best:
        print(f"{name}: {best:g} has the best mean, as you said.")
    else:
        difference = paired_difference(measured[best], measured[guess])
        certainty = (
            "and five seeds cannot tell the two apart: your guess may be right"
            if difference.verdict == "not detected"
            else "and the interval of their difference excludes 0"
        )
        certainty = certainty.replace("five seeds", f"{difference.n} seed{'s' * (difference.n > 1)}")
        if difference.n < 2:
            certainty = "but one seed has no interval, so nobody can tell"
        print(
            f"{name}: best on average is {best:g}; your {guess:g} has rank {ranked.index(guess) + 1} of "
            f"{len(ranked)}, "
            f"{certainty}"
        )


def assert_measured(value: float, stated: float, within: float) -> None:
    """Raise AssertionError unless a number that the text states is still what the cell has measured.

    In the profile "smoke" the runs are a few steps long, so the value must only be finite.

    Args:
        value: What the cell has measured.
        stated: What the text says.
        within: Largest difference between the two.
    """
    if not math.isfinite(value):
        raise AssertionError(f"measured {value}: expected a finite number")
    if os.environ.get("UDLIB_PROFILE") not in ("smoke", "full") and abs(value - stated) > within:
        raise AssertionError(f"measured {value:.4g}, the text says {stated} (± {within})")
