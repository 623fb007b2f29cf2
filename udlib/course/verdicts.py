"""Claims judged by the stored runs: paired differences over seeds, each with its verdict.

The claims are data, in `udlib.course.claims`, which this module offers too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from udlib.course.claims import (
    Claim,
    calibration_claims,
    detection_claims,
    distillation_claims,
    parallel_claims,
)
from udlib.course.measurements import best_beta, best_lambda, best_on_validation, metric_values
from udlib.course.photo_claims import photo_claims
from udlib.methods.base import Recipe
from udlib.statistics import PairedDifference, holm, paired_difference, paired_p_value

__all__ = [
    "Claim",
    "Verdict",
    "after_holm",
    "all_claims",
    "best_beta",
    "best_lambda",
    "best_on_validation",
    "calibration_claims",
    "detection_claims",
    "distillation_claims",
    "judge",
    "metric_values",
    "parallel_claims",
    "photo_claims",
]

# What the verdict of a difference says about a claim, by the direction that the claim expects.
CONSEQUENCES = {"higher": {"higher": "holds", "lower": "reversed"}, "lower": {"lower": "holds", "higher": "reversed"}}


def all_claims() -> list[Claim]:
    """Return the claims about all systems, in the order of the tables."""
    return [*calibration_claims(), *distillation_claims(), *parallel_claims(), *detection_claims(), *photo_claims()]


class Verdict(NamedTuple):
    """What the stored runs say about a claim.

    Attributes:
        difference: The paired difference (a fraction; nats for NLL), NaN where it is not measured.
        verdict: "holds", "reversed" or "not detected"; "not measured" where some run lacks a number, as a data set
            without a posterior has no true calibration error.
        p: The p value of the paired t test, not corrected for the number of claims; NaN where nothing is measured.
    """

    difference: PairedDifference
    verdict: str
    p: float = math.nan


def judge(claim: Claim) -> Verdict:
    """Compare a claim with the stored runs.

    Raises:
        FileNotFoundError: Where a run is not stored.
        ValueError: Where the claim expects neither "higher" nor "lower".
    """
    if claim.expected not in CONSEQUENCES:
        raise ValueError(f"expected is '{claim.expected}': a claim says 'higher' or 'lower'")
    try:
        ours = _values_by_seed(claim.metric, claim.recipes)
        theirs = _values_by_seed(claim.against_metric or claim.metric, claim.against)
    except KeyError:
        ours = theirs = [math.nan]
    if not all(map(math.isfinite, [*ours, *theirs])):
        return Verdict(PairedDifference(math.nan, math.nan, math.nan, len(ours)), "not measured")
    difference = paired_difference(ours, theirs)
    verdict = CONSEQUENCES[claim.expected].get(difference.verdict, difference.verdict)
    return Verdict(difference, verdict, paired_p_value(ours, theirs))


def _values_by_seed(metric: Sequence[str], recipes: Sequence[Recipe]) -> list[float]:
    """A claim's metric of each recipe, or the first of its metrics minus the second."""
    first, *second = (metric_values(recipes, name) for name in metric)
    return [a - b for a, b in zip(first, *second)] if second else first


def after_holm(verdicts: Sequence[Verdict]) -> list[float]:
    """Return each verdict's p value after Holm's correction for their number; NaN where nothing was measured."""
    measured = [k for k, verdict in enumerate(verdicts) if math.isfinite(verdict.p)]
    corrected = [math.nan] * len(verdicts)
    for k, p in zip(measured, holm([verdicts[k].p for k in measured])):
        corrected[k] = p
    return corrected
