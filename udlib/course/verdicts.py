"""The papers' claims against what was measured here: paired differences over seeds, each with its verdict.

A claim is data: two lists of recipes, paired by seed, a metric of the test split, and the direction that the paper says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from udlib.course.profiles import for_profile
from udlib.course.recipes import (
    METHODS,
    STUDENTS,
    TEACHERS,
    averaged,
    detection,
    distilled,
    hard_labels,
    pairs,
    parallel,
    partitioned,
    regimes,
    regimes_distilled,
    restart_controls,
    restarted,
    sweep,
    tricks,
    two_branch,
    weights,
)
from udlib.course.store import load
from udlib.methods.base import Recipe
from udlib.statistics import PairedDifference, paired_difference

CALIBRATION = {"ECE_pooled": "the pooled ECE", "true_CE_pooled": "the true calibration error", "NLL": "the NLL"}
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
    headline: bool = False  # stands in front in the README


class Verdict(NamedTuple):
    """The paired difference of a claim (a fraction; nats for NLL), and "holds", "not detected" or "reversed".

    "not measured" where some run lacks a number, as a data set without a posterior has no true error.
    """

    difference: PairedDifference
    verdict: str


def measured(recipes: Sequence[Recipe], metric: str, split: str = "test") -> list[float]:
    """One metric of stored runs, in the order of the recipes.

    Raises FileNotFoundError where a run is not stored, KeyError where it has not measured the metric.
    """
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
    try:
        ours, theirs = (_of_each_seed(claim, recipes) for recipes in (claim.recipes, claim.against))
    except KeyError:
        ours = theirs = [math.nan]
    if not all(map(math.isfinite, [*ours, *theirs])):
        return Verdict(PairedDifference(math.nan, math.nan, math.nan, len(ours)), "not measured")
    difference = paired_difference(ours, theirs)
    return Verdict(difference, HOLDS[claim.expected].get(difference.verdict, difference.verdict))


def _of_each_seed(claim: Claim, recipes: Sequence[Recipe]) -> list[float]:
    """The claim's metric, or the first of its metrics minus the second, of each recipe."""
    first, *second = (measured(recipes, metric) for metric in claim.metric)
    return [a - b for a, b in zip(first, *second)] if second else first


def best_on_validation(
    grid: Mapping[float, Sequence[Recipe]], metric: str = "mAP", higher_is_better: bool = True
) -> float:
    """The setting > 0 of a grid with the best mean over seeds on *validation*, as a grid search would choose it."""
    means = {
        setting: sum(values) / len(values)
        for setting, recipes in grid.items()
        if setting > 0
        for values in [measured(recipes, metric, "val")]
    }
    return (max if higher_is_better else min)(means, key=means.__getitem__)


def best_lambda(metric: str = "mAP", data: str = "scenes", higher_is_better: bool = True) -> float:
    """The λ > 0 of the sweep that validation chooses."""
    return best_on_validation(sweep(data), metric, higher_is_better)


def best_beta(metric: str = "mAP") -> float:
    """The β > 0 of UD (Eq. 18) that validation chooses."""
    return best_on_validation({value: found for (name, value), found in weights().items() if name == "beta"}, metric)


def calibration_claims() -> list[Claim]:
    """What the paper says of its calibration branch, and what a careful reader would ask beside it."""
    claims = []
    for data in ("scenes", "digits"):
        runs = sweep(data)
        claims += [
            Claim(
                "the branch at λ = 0.1 raises mAP",
                "UD, Table 2",
                ("mAP",),
                runs[0.1],
                runs[0.0],
                "higher",
                data,
                headline=data == "scenes",
            ),
            Claim(
                "it helps the *Difficult* images more than all",
                "UD, section 5.2",
                ("mAP_difficult", "mAP"),
                runs[0.1],
                runs[0.0],
                "higher",
                data,
            ),
            Claim("it lowers the pooled ECE", "UD, Fig. 3", ("ECE_pooled",), runs[0.1], runs[0.0], "lower", data),
            Claim("it lowers the class-wise ECE", "UD, Eq. 2", ("ECE",), runs[0.1], runs[0.0], "lower", data),
            Claim(
                "it narrows the gap of confident answers",
                "UD, Fig. 3",
                ("overconfidence",),
                runs[0.1],
                runs[0.0],
                "lower",
                data,
            ),
            Claim("it lowers the true calibration error", "ours", ("true_CE",), runs[0.1], runs[0.0], "lower", data),
            Claim("it lowers the NLL", "ours", ("NLL",), runs[0.1], runs[0.0], "lower", data),
        ]
        claims += [
            Claim("at λ = 1 it raises mAP", "ours", ("mAP",), runs[1.0], runs[0.0], "higher", data),
            Claim(
                "at λ = 1 it lowers the pooled ECE",
                "ours",
                ("ECE_pooled",),
                runs[1.0],
                runs[0.0],
                "lower",
                data,
                headline=data == "scenes",
            ),
            Claim("at λ = 1 it lowers the NLL", "ours", ("NLL",), runs[1.0], runs[0.0], "lower", data),
        ]
        chosen = best_lambda(data=data)
        if chosen not in (0.1, 1.0):
            name = f"the λ that validation chooses by mAP ({chosen:g})"
            claims += [
                Claim(f"{name} raises mAP", "ours", ("mAP",), runs[chosen], runs[0.0], "higher", data),
                Claim(f"{name} lowers the pooled ECE", "ours", ("ECE_pooled",), runs[chosen], runs[0.0], "lower", data),
            ]
    claims.append(
        Claim(
            "CutOut alone lowers the pooled ECE more than λ = 0.1 does",
            "ours",
            ("ECE_pooled",),
            tricks()["both"],
            sweep()[0.1],
            "lower",
            headline=True,
        )
    )
    return claims


def distillation_claims() -> list[Claim]:
    """What the paper says of distillation (Tables 3-5, Fig. 4), and calibration beside it, of which the paper says nothing.

    "UD" is Eq. 18 with the printed α = β = 0.5; "UD with β = …" has the β that validation chooses.
    """
    of, hard, branched, beta = pairs(), two_branch(0.0), two_branch(0.1), best_beta()
    restart, apart = restarted(), restart_controls()
    wide, without_maps = {terms: of["small_wide", "small", terms] for terms in METHODS}, distilled("KD + distribution")
    tuned, name = distilled(beta=beta), f"UD with β = {beta:g}"
    claims = []
    for teacher, student in product(TEACHERS, STUDENTS):
        kd, ud, alone = of[teacher, student, "KD"], of[teacher, student, "UD"], two_branch(0.0, network=student)
        first = (teacher, student) == (TEACHERS[0], STUDENTS[0])
        claims += [
            _higher(f"{teacher} teaches {student}: KD raises mAP", "UD, Table 3", kd, alone, headline=first),
            _higher(f"{teacher} teaches {student}: UD has a higher mAP than KD", "UD, Table 3", ud, kd, headline=first),
        ]
    claims += [
        _higher(
            "KD: the better teacher (small_wide, not small) makes the better student",
            "UD, section 5.3.1",
            wide["KD"],
            of["small", "small", "KD"],
        ),
        _higher(f"{name} raises mAP over hard labels", "UD, Table 3", tuned, hard),
        _higher(f"{name} has a higher mAP than KD", "UD, Table 3", tuned, wide["KD"], headline=True),
        Claim(
            f"{name} helps the *Difficult* images more than all",
            "ours",
            ("mAP_difficult", "mAP"),
            tuned,
            hard,
            "higher",
        ),
        *(
            _higher(f"{other} raises mAP over BCE", "UD, Table 5", recipes, hard)
            for other, recipes in hard_labels().items()
        ),
        _higher("the calibration branch's distribution (Eq. 14) raises mAP over KD", "ours", without_maps, wide["KD"]),
        _higher("the attention term (Eq. 17) raises mAP", "UD, Table 5", wide["UD"], without_maps),
        _higher(f"the attention term raises mAP at β = {beta:g}", "UD, Table 5", tuned, without_maps),
        _higher(
            "UD from itself after a restart beats hard labels after it",
            "UD, Table 4",
            restart["UD"],
            restart["hard labels"],
            headline=True,
        ),
        _higher("the restart alone raises mAP", "ours", restart["hard labels"], branched),
        _higher(
            "the restart raises mAP over one schedule of as many epochs",
            "ours",
            restart["hard labels"],
            apart["80 epochs"],
        ),
        _higher("after a restart, UD has a higher mAP than KD", "ours", restart["UD"], apart["KD"]),
        Claim(
            "after a restart, UD has a lower pooled ECE than KD",
            "ours",
            ("ECE_pooled",),
            restart["UD"],
            apart["KD"],
            "lower",
        ),
    ]
    claims += [
        Claim(
            f"{who} moves the uncertainty map onto difficult objects",
            "UD, Fig. 4",
            ("uncertainty_energy_difficult",),
            recipes,
            branched,
            "higher",
        )
        for who, recipes in (("UD", wide["UD"]), (name, tuned))
    ]
    against_kd = f"{name}, against KD,"
    for who, ours, theirs in (
        ("KD", wide["KD"], hard),
        (name, tuned, hard),
        (against_kd, tuned, wide["KD"]),
        ("UD after a restart, against hard labels,", restart["UD"], restart["hard labels"]),
    ):
        claims += [
            Claim(
                f"{who} lowers {what}",
                "ours",
                (metric,),
                ours,
                theirs,
                "lower",
                headline=(who, metric) == (against_kd, "ECE_pooled"),
            )
            for metric, what in CALIBRATION.items()
        ]
    claims += [
        _higher(
            "without augmentation, where the teacher overfits, KD raises mAP",
            "ours",
            regimes_distilled()["no augmentation", "KD"],
            regimes()["no augmentation", 0.0],
        )
    ]
    digits, taught = two_branch(0.0, "digits"), {terms: distilled(terms, "digits") for terms in METHODS}
    return claims + [
        _higher("KD raises mAP over hard labels", "UD, Table 3", taught["KD"], digits, "digits"),
        Claim("KD lowers the pooled ECE", "ours", ("ECE_pooled",), taught["KD"], digits, "lower", "digits"),
        _higher("UD has a higher mAP than KD", "UD, Table 3", taught["UD"], taught["KD"], "digits"),
    ]


def parallel_claims() -> list[Claim]:
    """What Parallel Self-Distillation (PSD) promises, and what its parts are worth: averaging, loss, teachers, partition.

    Where only three seeds of a control are trained, three seeds of PSD stand against it.
    """
    psd, asl, plain, base = partitioned(), parallel(), averaged(), two_branch(0.0)
    both = psd[3, "both"]
    claims = [
        _higher("PSD raises mAP over the baseline", "PSD, COCO", both, base, headline=True),
        _higher("averaging the weights, with a shorter warm-up, raises mAP", "ours", plain, base),
        _higher("the asymmetric loss (ASL) raises mAP over BCE trained so", "ours", asl, plain),
        _higher("the teachers of PSD raise mAP over ASL alone", "ours", both, asl, headline=True),
        Claim(
            "the teachers of PSD help the *Difficult* images more than all",
            "ours",
            ("mAP_difficult", "mAP"),
            both,
            asl,
            "higher",
        ),
    ]
    claims += [
        _higher(
            f"both partitions of PSD have a higher mAP than {alone} alone", "PSD, abstract", both[: len(found)], found
        )
        for alone in ("CGP", "DGP")
        for found in [psd[3, alone]]
    ]
    claims += [
        _higher(f"PSD has a higher mAP than {what}", "ours", both[: len(found)], found)
        for what, found in (
            ("with parts at random", psd[3, "random"]),
            ("plain self-distillation (k = 1)", psd[1, "whole"]),
        )
    ]
    for who, ours, theirs, expected in (
        ("ASL raises", asl, plain, "higher"),
        ("PSD, against ASL, lowers", both, asl, "lower"),
        ("PSD, against the baseline, lowers", both, base, "lower"),
    ):
        claims += [
            Claim(f"{who} {what}", "ours", (metric,), ours, theirs, expected) for metric, what in CALIBRATION.items()
        ]
    return claims


def detection_claims() -> list[Claim]:
    """What distillation from weakly-supervised detection (WSD) promises: its teacher, its student, its parts, its proposals.

    The student stands beside one of plain KD from a network of its size too: does a *detector* teach more than a classifier? That
    KD has soft labels alone and no learned scale; where stage 2 is the same, only the teachers' answers differ.
    Where only three seeds of an arm are trained, three seeds of the other stand against it.
    """
    arms, base = detection(), two_branch(0.0)
    teacher, student = arms["teacher, grid"], arms["both"]
    claims = [
        _higher("the detector of WSD has a higher mAP than the baseline", "WSD, COCO", teacher, base),
        _higher("WSD's student raises mAP over the baseline", "WSD, abstract", student, base, headline=True),
        Claim(
            "WSD's student helps the *Difficult* images more than all",
            "ours",
            ("mAP_difficult", "mAP"),
            student,
            base,
            "higher",
        ),
        _higher("WSD's student has a higher mAP than the detector", "WSD, NUS-WIDE", student, teacher),
        _higher(
            "WSD's student has a higher mAP than KD from a classifier of the same size",
            "ours",
            student,
            pairs()["small", "small", "KD"],
        ),
    ]
    claims.append(
        _higher(
            "predictions of a detector teach a higher mAP than those of the baseline, in the same stage 2",
            "ours",
            arms["predictions"],
            arms["classifier"],
            headline=True,
        )
    )
    for part in ("features", "predictions"):
        claims += [
            _higher(f"WSD's {part} alone raise mAP", "WSD, ablation", arms[part], base[: len(arms[part])]),
            _higher(
                f"both of WSD's stages have a higher mAP than its {part} alone",
                "WSD, ablation",
                student[: len(arms[part])],
                arms[part],
            ),
        ]
    for kind, words, source in (
        ("boxes", "annotated boxes", "WSD, proposals"),
        ("selective-search", "selective search", "ours"),
    ):
        for who, grid in (("teacher", teacher), ("both", student)):
            found = arms[f"{who}, {kind}"]
            name = "detector" if who == "teacher" else "student"
            claims.append(
                _higher(
                    f"{words} for a grid raise the {name}'s mAP"
                    if kind == "boxes"
                    else f"{words} for a grid raises the {name}'s mAP",
                    source,
                    found,
                    grid[: len(found)],
                )
            )
    return claims + [
        Claim(f"WSD's student, against the baseline, lowers {what}", "ours", (metric,), student, base, "lower")
        for metric, what in CALIBRATION.items()
    ]


def _higher(
    question: str,
    source: str,
    recipes: Sequence[Recipe],
    against: Sequence[Recipe],
    data: str = "scenes",
    headline: bool = False,
) -> Claim:
    return Claim(question, source, ("mAP",), recipes, against, "higher", data, headline)
