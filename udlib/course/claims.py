"""The papers' claims and the course's own questions as data: recipes to compare, a metric, a direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from udlib.course.arms import (
    PAIR_TERMS,
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
)
from udlib.course.measurements import best_beta, best_lambda
from udlib.methods.base import Recipe

Arms = tuple[Sequence[Recipe], Sequence[Recipe]]  # those that a claim is about, and those that they are compared with
KNOWN = ("scenes", "digits")  # data sets whose true calibration error is asked about
CALIBRATION = {"ECE_pooled": "pooled ECE", "true_CE_pooled": "true calibration error", "NLL": "NLL"}


@dataclass(frozen=True)
class Claim:
    """`metric` of `recipes` minus that of `against`, seed by seed, should be `expected`.

    Attributes:
        question: The claim in words.
        source: Paper and place, such as "UD, Table 2"; "ours" for a question of the course.
        metric: Name of the metric on the test split; "SPLIT NAME" for another split, such as "blur-2 NLL". Two names ask
            whether the change in the first exceeds that in the second.
        recipes: The recipes that the claim is about, one per seed.
        against: The recipes to compare them with, paired by seed.
        expected: "higher" or "lower".
        data: Name of the data set.
        headline: Whether the README shows the claim.
        against_metric: The metric of `against`, where it is another one; by default the same.
    """

    question: str
    source: str
    metric: tuple[str, ...]
    recipes: Sequence[Recipe]
    against: Sequence[Recipe]
    expected: str
    data: str = "scenes"
    headline: bool = False
    against_metric: tuple[str, ...] = ()


def calibration_claims() -> list[Claim]:
    """Return what the UD paper claims about its calibration branch, and what a careful reader would also ask."""
    return [claim for data in ("scenes", "digits") for claim in _claims_on(data)] + [
        _lower(
            "CutOut alone has a lower pooled ECE than the branch at λ = 0.1",
            "ours",
            "ECE_pooled",
            (tricks()["both"], sweep()[0.1]),
            headline=True,
        )
    ]


def branch_claims(
    runs: Mapping[float, Sequence[Recipe]], data: str, headline: bool = False, ece_headline: bool = False
) -> list[Claim]:
    """Return what the paper claims about its branch at λ = 0.1, and what the course asks about λ = 1.

    `headline` says whether the README shows the mAP at λ = 0.1 and the pooled ECE at λ = 1, and `ece_headline` whether it
    shows the pooled ECE at λ = 0.1.
    """
    paper, strong = (runs[0.1], runs[0.0]), (runs[1.0], runs[0.0])
    weak, strong_name = "the branch at λ = 0.1", "the branch at λ = 1"
    true_error = [_lower(f"{weak} lowers the true calibration error", "ours", "true_CE", paper, data)]
    return [
        _higher(f"{weak} raises mAP", "UD, Table 2", *paper, data, headline=headline),
        _difficult(f"{weak} helps the *Difficult* images more than all images", "UD, section 5.2", *paper, data),
        _lower(f"{weak} lowers the pooled ECE", "UD, Fig. 3", "ECE_pooled", paper, data, headline=ece_headline),
        _lower(f"{weak} lowers the class-wise ECE", "UD, Eq. 2", "ECE", paper, data),
        _lower(f"{weak} lowers the overconfidence", "UD, Fig. 3", "overconfidence", paper, data),
        *(true_error if data in KNOWN else []),
        _lower(f"{weak} lowers the NLL", "ours", "NLL", paper, data),
        _higher(f"{strong_name} raises mAP", "ours", *strong, data),
        _lower(f"{strong_name} lowers the pooled ECE", "ours", "ECE_pooled", strong, data, headline=headline),
        _lower(f"{strong_name} lowers the NLL", "ours", "NLL", strong, data),
    ]


def _claims_on(data: str) -> list[Claim]:
    """The claims about the calibration branch on one of the embedded data sets, which have a whole sweep of λ."""
    runs = sweep(data)
    claims = branch_claims(runs, data, headline=data == "scenes")
    best = best_lambda(data=data)
    if best not in (0.1, 1.0):
        name = f"the λ that validation chooses by mAP ({best:g})"
        claims += [
            _higher(f"{name} raises mAP", "ours", runs[best], runs[0.0], data),
            _lower(f"{name} lowers the pooled ECE", "ours", "ECE_pooled", (runs[best], runs[0.0]), data),
        ]
    return claims


def distillation_claims() -> list[Claim]:
    """Return what the UD paper claims about distillation (Tables 3-5, Fig. 4), and questions about calibration.

    The paper says nothing about the calibration of students. "UD" is Eq. 18 with the printed α = β = 0.5; "UD with β =
    …" has the β that validation selects.
    """
    return [
        *_claims_of_pairs(),
        *_claims_of_terms(),
        *_claims_of_restarts(),
        *_claims_of_maps(),
        *_claims_of_students_calibration(),
        _higher(
            "without augmentation, where the teacher overfits, KD raises mAP",
            "ours",
            regimes_distilled()["no augmentation", "KD"],
            regimes()["no augmentation", 0.0],
        ),
        *_claims_of_digits(),
    ]


def _claims_of_pairs() -> list[Claim]:
    """Table 3: each student of each teacher."""
    of, claims = pairs(), []
    for teacher, student in product(TEACHERS, STUDENTS):
        kd, ud, alone = of[teacher, student, "KD"], of[teacher, student, "UD"], two_branch(0.0, network=student)
        first = (teacher, student) == (TEACHERS[0], STUDENTS[0])
        claims += [
            _higher(f"{teacher} teaches {student}: KD raises mAP", "UD, Table 3", kd, alone, headline=first),
            _higher(f"{teacher} teaches {student}: UD has a higher mAP than KD", "UD, Table 3", ud, kd, headline=first),
        ]
    better, worse = of["small_wide", "small", "KD"], of["small", "small", "KD"]
    question = "KD from the better teacher (small_wide, not small) gives a higher mAP"
    return [*claims, _higher(question, "UD, section 5.3.1", better, worse)]


def _claims_of_terms() -> list[Claim]:
    """Tables 3 and 5: UD with the β that validation selects, other hard labels, and each term of Eq. 18."""
    of, hard, beta, without_maps = pairs(), two_branch(0.0), best_beta(), distilled("KD + distribution")
    kd, ud = of["small_wide", "small", "KD"], of["small_wide", "small", "UD"]
    tuned, name = distilled(beta=beta), f"UD with β = {beta:g}"
    return [
        _higher(f"{name} raises mAP over hard labels", "UD, Table 3", tuned, hard),
        _higher(f"{name} has a higher mAP than KD", "UD, Table 3", tuned, kd, headline=True),
        _difficult(f"{name} helps the *Difficult* images more than all images", "ours", tuned, hard),
        *(
            _higher(f"{other} raises mAP over BCE", "UD, Table 5", recipes, hard)
            for other, recipes in hard_labels().items()
        ),
        _higher("the calibration branch's distribution (Eq. 14) raises mAP over KD", "ours", without_maps, kd),
        _higher("the attention term (Eq. 17) raises mAP", "UD, Table 5", ud, without_maps),
        _higher(f"the attention term raises mAP at β = {beta:g}", "UD, Table 5", tuned, without_maps),
    ]


def _claims_of_restarts() -> list[Claim]:
    """Table 4: self-distillation after a restart, and the controls that the table leaves out."""
    restart, controls = restarted(), restart_controls()
    hard, ud = restart["hard labels"], restart["UD"]
    question = "after a restart, UD from the network itself has a higher mAP than hard labels"
    return [
        _higher(question, "UD, Table 4", ud, hard, headline=True),
        _higher("the restart alone raises mAP", "ours", hard, two_branch(0.1)),
        _higher("a restart has a higher mAP than one schedule of as many epochs", "ours", hard, controls["80 epochs"]),
        _higher("after a restart, UD has a higher mAP than KD", "ours", ud, controls["KD"]),
        _lower("after a restart, UD has a lower pooled ECE than KD", "ours", "ECE_pooled", (ud, controls["KD"])),
    ]


def _claims_of_maps() -> list[Claim]:
    """Fig. 4: where the uncertainty map of a student lies."""
    beta = best_beta()
    return [
        Claim(
            f"{who} moves the uncertainty map onto difficult objects",
            "UD, Fig. 4",
            ("uncertainty_energy_difficult",),
            recipes,
            two_branch(0.1),
            "higher",
        )
        for who, recipes in (("UD", distilled()), (f"UD with β = {beta:g}", distilled(beta=beta)))
    ]


def _claims_of_students_calibration() -> list[Claim]:
    """The calibration of students. The paper says nothing about it."""
    hard, kd, beta, restart = two_branch(0.0), distilled("KD"), best_beta(), restarted()
    tuned, name = distilled(beta=beta), f"UD with β = {beta:g}"
    return [
        *_better_calibrated("KD", "hard labels", (kd, hard)),
        *_better_calibrated(name, "hard labels", (tuned, hard)),
        *_better_calibrated(name, "KD", (tuned, kd), headline="ECE_pooled"),
        *_better_calibrated("after a restart, UD", "hard labels", (restart["UD"], restart["hard labels"])),
    ]


def _claims_of_digits() -> list[Claim]:
    """KD and UD on the second data set."""
    hard = two_branch(0.0, "digits")
    kd, ud = (distilled(terms, "digits") for terms in PAIR_TERMS)
    return [
        _higher("KD raises mAP over hard labels", "UD, Table 3", kd, hard, "digits"),
        _lower("KD has a lower pooled ECE than hard labels", "ours", "ECE_pooled", (kd, hard), "digits"),
        _higher("UD has a higher mAP than KD", "UD, Table 3", ud, kd, "digits"),
    ]


def parallel_claims() -> list[Claim]:
    """Return the claims about Parallel Self-Distillation (PSD) as a whole, and about each of its parts.

    Where a control has only three seeds, PSD's first three seeds are compared with it.
    """
    psd, asl, plain, base = partitioned(), parallel(), averaged(), two_branch(0.0)
    both = psd[3, "both"]

    def against_control(question: str, source: str, control: Sequence[Recipe]) -> Claim:
        return _higher(question, source, both[: len(control)], control)

    return [
        _higher("PSD raises mAP over the baseline", "PSD, COCO", both, base, headline=True),
        _higher("averaging the weights, with a shorter warm-up, raises mAP", "ours", plain, base),
        _higher("with averaged weights, the asymmetric loss (ASL) raises mAP over BCE", "ours", asl, plain),
        _higher("the teachers of PSD raise mAP over ASL alone", "ours", both, asl, headline=True),
        _difficult("the teachers of PSD help the *Difficult* images more than all images", "ours", both, asl),
        *(
            against_control(
                f"PSD with both partitions has a higher mAP than with {alone} alone", "PSD, abstract", psd[3, alone]
            )
            for alone in ("CGP", "DGP")
        ),
        against_control("PSD has a higher mAP with its own parts than with random ones", "ours", psd[3, "random"]),
        against_control("PSD has a higher mAP than plain self-distillation (k = 1)", "ours", psd[1, "whole"]),
        *_better_calibrated("ASL", "BCE with averaged weights", (asl, plain), expected="higher"),
        *_better_calibrated("PSD", "ASL alone", (both, asl)),
        *_better_calibrated("PSD", "the baseline", (both, base)),
    ]


def detection_claims() -> list[Claim]:
    """Return the claims about distillation from weakly-supervised detection (WSD): teacher, student, parts, proposals.

    The student is also compared with plain KD from a network of its size: does a *detector* teach more than a
    classifier? That KD has soft labels alone and no learned scale. In "the same stage 2", only the teachers' answers
    differ. Where one arm has only three seeds, the first three seeds of the other are compared with it.
    """
    arms, base = detection(), two_branch(0.0)
    teacher, student = arms["teacher, grid"], arms["both"]
    return [
        _higher("the detector of WSD has a higher mAP than the baseline", "WSD, COCO", teacher, base),
        _higher("WSD's student raises mAP over the baseline", "WSD, abstract", student, base, headline=True),
        _difficult("WSD's student helps the *Difficult* images more than all images", "ours", student, base),
        _higher("WSD's student has a higher mAP than the detector", "WSD, NUS-WIDE", student, teacher),
        _higher(
            "WSD's student has a higher mAP than KD from a classifier of the same size",
            "ours",
            student,
            pairs()["small", "small", "KD"],
        ),
        _higher(
            "in the same stage 2, a detector's predictions give a higher mAP than the baseline's predictions",
            "ours",
            arms["predictions"],
            arms["classifier"],
            headline=True,
        ),
        *_claims_of_stages(arms, base),
        *_claims_of_proposals(arms),
        *_better_calibrated("WSD's student", "the baseline", (student, base)),
    ]


def _claims_of_stages(arms: dict[str, list[Recipe]], base: list[Recipe]) -> list[Claim]:
    """What each stage of WSD is worth alone, and both together."""
    claims = []
    for part in ("features", "predictions"):
        alone = arms[part]
        both = arms["both"][: len(alone)]
        claims += [
            _higher(f"WSD's {part} alone raise mAP", "WSD, ablation", alone, base[: len(alone)]),
            _higher(f"WSD has a higher mAP with both stages than with {part} alone", "WSD, ablation", both, alone),
        ]
    return claims


def _claims_of_proposals(arms: dict[str, list[Recipe]]) -> list[Claim]:
    """Other proposals in place of the grid, for the detector and for its student."""
    claims = []
    for kind, phrase, source in (
        ("boxes", "using annotated boxes in place of a grid raises", "WSD, proposals"),
        ("selective-search", "using selective search in place of a grid raises", "ours"),
    ):
        for who, arm, grid in (("detector", "teacher", arms["teacher, grid"]), ("student", "both", arms["both"])):
            recipes = arms[f"{arm}, {kind}"]
            claims.append(_higher(f"{phrase} the {who}'s mAP", source, recipes, grid[: len(recipes)]))
    return claims


def _higher(
    question: str,
    source: str,
    recipes: Sequence[Recipe],
    against: Sequence[Recipe],
    data: str = "scenes",
    headline: bool = False,
) -> Claim:
    """A claim that mAP is higher."""
    return Claim(question, source, ("mAP",), recipes, against, "higher", data, headline)


def _lower(question: str, source: str, metric: str, arms: Arms, data: str = "scenes", headline: bool = False) -> Claim:
    """A claim that the metric of the first arm is lower than that of the second."""
    return Claim(question, source, (metric,), *arms, "lower", data, headline)


def _difficult(
    question: str, source: str, recipes: Sequence[Recipe], against: Sequence[Recipe], data: str = "scenes"
) -> Claim:
    """A claim that the mAP of difficult images changes more than that of all images."""
    return Claim(question, source, ("mAP_difficult", "mAP"), recipes, against, "higher", data)


def _better_calibrated(name: str, other: str, arms: Arms, expected: str = "lower", headline: str = "") -> list[Claim]:
    """One claim for each measure of calibration; `headline` names the metric of one that the README shows."""
    question = f"{name} has a {expected} {{}} than {other}"
    return [
        Claim(question.format(words), "ours", (metric,), *arms, expected, headline=metric == headline)
        for metric, words in CALIBRATION.items()
    ]
