"""The papers' claims against what was measured here: paired differences over seeds, each with its verdict.

A claim is data: two lists of recipes, paired by seed, a metric of the test split, and the direction that the paper says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from udlib.experiments import Recipe, for_profile, load
from udlib.recipes import (STUDENTS, TEACHERS, distilled, hard_labels, pairs, regimes, regimes_distilled, restarted, sweep,
                            tricks, two_branch)
from udlib.statistics import PairedDifference, paired_difference

HOLDS = {"higher": {"higher": "holds", "lower": "reversed"}, "lower": {"lower": "holds", "higher": "reversed"}}


@dataclass(frozen=True)
class Claim:
    """`metric` of `recipes` minus that of `against`, seed by seed, should be `expected`: "higher" or "lower".

    Two metrics ask whether the change in the first exceeds the change in the second.
    """

    question: str
    source: str  # who says so and where; "ours" for a question of the course
    metric: tuple[str, ...]
    recipes: Sequence[Recipe]
    against: Sequence[Recipe]
    expected: str
    data: str = "scenes"


class Verdict(NamedTuple):
    """The paired difference of a claim (a fraction; nats for NLL), and "holds", "not detected" or "reversed"."""

    difference: PairedDifference
    verdict: str


def measured(recipes: Sequence[Recipe], metric: str, split: str = "test") -> list[float]:
    """One metric of stored runs, in the order of the recipes. Raises FileNotFoundError where a run is not stored."""
    values = []
    for chosen in map(for_profile, recipes):
        run = load(chosen)
        if run is None:
            raise FileNotFoundError(f"no result of {chosen} is stored: `udlib runs --only {chosen.key}` trains it")
        values.append(run.metrics[split][metric])
    return values


def judge(claim: Claim) -> Verdict:
    """Hold a claim against the stored runs; raises FileNotFoundError where one is missing."""
    if claim.expected not in HOLDS:
        raise ValueError(f"expected is '{claim.expected}': a claim says 'higher' or 'lower'")
    ours, theirs = ([sum(sign * value for sign, value in zip((1, -1), of_seed)) for of_seed in
                     zip(*(measured(recipes, metric) for metric in claim.metric))] for recipes in (claim.recipes, claim.against))
    difference = paired_difference(ours, theirs)
    return Verdict(difference, HOLDS[claim.expected].get(difference.verdict, difference.verdict))


def best_lambda(metric: str = "mAP", data: str = "scenes", higher_is_better: bool = True) -> float:
    """The λ > 0 of the sweep with the best mean over seeds on *validation*, as a grid search would choose it."""
    means = {lam: sum(values) / len(values) for lam, recipes in sweep(data).items() if lam > 0
             for values in [measured(recipes, metric, "val")]}
    return (max if higher_is_better else min)(means, key=means.__getitem__)


def calibration_claims() -> list[Claim]:
    """What the paper says of its calibration branch, and what a careful reader would ask beside it."""
    claims = []
    for data in ("scenes", "digits"):
        runs = sweep(data)
        claims += [
            Claim("the branch at λ = 0.1 raises mAP", "UD, Table 2", ("mAP",), runs[0.1], runs[0.0], "higher", data),
            Claim("it helps the *Difficult* images more than all", "UD, section 5.2", ("mAP_difficult", "mAP"), runs[0.1],
                  runs[0.0], "higher", data),
            Claim("it lowers the pooled ECE", "UD, Fig. 3", ("ECE_pooled",), runs[0.1], runs[0.0], "lower", data),
            Claim("it lowers the class-wise ECE", "UD, Eq. 2", ("ECE",), runs[0.1], runs[0.0], "lower", data),
            Claim("it narrows the gap of confident answers", "UD, Fig. 3", ("overconfidence",), runs[0.1], runs[0.0],
                  "lower", data),
            Claim("it lowers the true calibration error", "ours", ("true_CE",), runs[0.1], runs[0.0], "lower", data),
            Claim("it lowers the NLL", "ours", ("NLL",), runs[0.1], runs[0.0], "lower", data),
        ]
        claims += [
            Claim("at λ = 1 it raises mAP", "ours", ("mAP",), runs[1.0], runs[0.0], "higher", data),
            Claim("at λ = 1 it lowers the pooled ECE", "ours", ("ECE_pooled",), runs[1.0], runs[0.0], "lower", data),
            Claim("at λ = 1 it lowers the NLL", "ours", ("NLL",), runs[1.0], runs[0.0], "lower", data),
        ]
        chosen = best_lambda(data=data)
        if chosen not in (0.1, 1.0):
            name = f"the λ that validation chooses by mAP ({chosen:g})"
            claims += [Claim(f"{name} raises mAP", "ours", ("mAP",), runs[chosen], runs[0.0], "higher", data),
                       Claim(f"{name} lowers the pooled ECE", "ours", ("ECE_pooled",), runs[chosen], runs[0.0], "lower", data)]
    claims.append(Claim("CutOut alone lowers the pooled ECE more than λ = 0.1 does", "ours", ("ECE_pooled",), tricks()["both"],
                        sweep()[0.1], "lower"))
    return claims


def distillation_claims() -> list[Claim]:
    """What the paper says of distillation (Tables 3-5, Fig. 4), and calibration beside it, of which the paper says nothing."""
    of, hard = pairs(), two_branch(0.0)
    wide, restart = {terms: of["small_wide", "small", terms] for terms in ("KD", "UD")}, restarted()
    without_maps = distilled("KD + distribution")
    claims = []
    for teacher in TEACHERS:
        for student in STUDENTS:
            kd, ud, alone = of[teacher, student, "KD"], of[teacher, student, "UD"], two_branch(0.0, network=student)
            claims += [Claim(f"{teacher} teaches {student}: KD raises mAP", "UD, Table 3", ("mAP",), kd, alone, "higher"),
                       Claim(f"{teacher} teaches {student}: UD has a higher mAP than KD", "UD, Table 3", ("mAP",), ud, kd, "higher")]
    claims += [Claim("UD: the better teacher (small_wide, not small) makes the better student", "UD, section 5.3.1", ("mAP",),
                     wide["UD"], of["small", "small", "UD"], "higher"),
               Claim("UD raises mAP over hard labels", "UD, Table 3", ("mAP",), wide["UD"], hard, "higher"),
               Claim("UD helps the *Difficult* images more than all", "ours", ("mAP_difficult", "mAP"), wide["UD"], hard, "higher")]
    claims += [Claim(f"{name} raises mAP over BCE", "UD, Table 5", ("mAP",), recipes, hard, "higher")
               for name, recipes in hard_labels().items()]
    claims += [Claim("the calibration branch's distribution (Eq. 14) raises mAP over KD", "ours", ("mAP",), without_maps, wide["KD"],
                     "higher"),
               Claim("the attention term (Eq. 17) raises mAP", "UD, Table 5", ("mAP",), wide["UD"], without_maps, "higher"),
               Claim("standardised maps raise the mAP of UD", "ours", ("mAP",), distilled(normalize=True), wide["UD"], "higher"),
               Claim("UD from itself after a restart beats hard labels after it", "UD, Table 4", ("mAP",), restart["UD"],
                     restart["hard labels"], "higher"),
               Claim("the restart alone raises mAP", "ours", ("mAP",), restart["hard labels"], two_branch(0.1), "higher"),
               Claim("UD moves the uncertainty map onto difficult objects", "UD, Fig. 4", ("uncertainty_energy_difficult",),
                     wide["UD"], two_branch(0.1), "higher")]
    for name, ours, theirs in (("KD", wide["KD"], hard), ("UD", wide["UD"], hard), ("UD, against KD,", wide["UD"], wide["KD"]),
                               ("UD after a restart, against hard labels,", restart["UD"], restart["hard labels"])):
        claims += [Claim(f"{name} lowers {what}", "ours", (metric,), ours, theirs, "lower")
                   for metric, what in (("ECE_pooled", "the pooled ECE"), ("true_CE_pooled", "the true calibration error"),
                                        ("NLL", "the NLL"))]
    unlearned = regimes()["no augmentation", 0.0]
    claims += [Claim("without augmentation, where the teacher overfits, KD raises mAP", "ours", ("mAP",),
                     regimes_distilled()["no augmentation", "KD"], unlearned, "higher")]
    digits = two_branch(0.0, "digits")
    for terms in ("KD", "UD"):
        claims += [Claim(f"{terms} raises mAP over hard labels", "UD, Table 3", ("mAP",), distilled(terms, "digits"), digits,
                         "higher", "digits"),
                   Claim(f"{terms} lowers the pooled ECE", "ours", ("ECE_pooled",), distilled(terms, "digits"), digits, "lower",
                         "digits")]
    claims += [Claim("UD has a higher mAP than KD", "UD, Table 3", ("mAP",), distilled("UD", "digits"), distilled("KD", "digits"),
                     "higher", "digits")]
    return claims
