"""The arms of the course's experiments: recipes by the question that they answer, each with several seeds.

`udlib.course.recipes` gathers them into groups.
"""

from __future__ import annotations

from udlib.methods import method_of, recipe
from udlib.methods.base import Recipe

SEEDS = range(5)

# λ of UD's Eq. 12; the paper has 0.1. The course's main data set gets the whole sweep, the others the headline values.
LAMBDAS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
HEADLINE_LAMBDAS = (0.0, 0.1, 1.0)

# Table 1 of UD measures two tricks: CutOut (random erasing) and cosine decay of the learning rate.
TRICKS = {
    "neither": {"erase": 0.0, "schedule": "step"},
    "CutOut": {"erase": 0.5, "schedule": "step"},
    "cosine decay": {"erase": 0.0, "schedule": "one-cycle"},
    "both": {"erase": 0.5, "schedule": "one-cycle"},
}


# Only a network that overfits needs calibration: the course's regime, one that overfits more and one that overfits
# less.
REGIMES = {"no augmentation": {"flip": False}, "flips": {}, "CutOut": {"erase": 0.5}}
REGIME_LAMBDAS = (0.0, 1.0)

# Table 2 of UD has networks of several sizes; in Table 3, two teachers each teach two students.
NETWORKS = ("small_narrow", "small", "small_wide")
TEACHERS = ("small_wide", "small")
STUDENTS = ("small", "small_narrow")

# What a student learns from: the teacher's sigmoids alone (Eq. 13), its calibration branch too (Eq. 14), or all of Eq.
# 18.
TERMS = {"KD": {"alpha": 0.0, "beta": 0.0}, "KD + distribution": {"beta": 0.0}, "UD": {}}
PAIR_TERMS = ("KD", "UD")  # those that Table 3 compares
TEMPERATURES = (1.0, 3.0, 5.0)
ALPHAS = (0.0, 0.5, 2.0)  # the paper has 0.5
# The paper has 0.5 here too. Eq. 17 is a norm over cells and Eq. 13 a mean over classes, so far smaller values are
# tried.
BETAS = (0.0, 0.005, 0.05, 0.5)
SWEEP_SEEDS = range(3)

# The hard-label rows of Table 5.
HARD_LABELS = {
    "softmax, T = 3": {"loss": "softmax"},
    "label smoothing": {"loss": "label-smoothing"},
    "1/k softmax": {"loss": "one-over-k"},
}

# How Parallel Self-Distillation (PSD) trains: a short warm-up, and a running average of the weights.
AVERAGED = {"warm_up": 0.1, "ema": 0.065}
# Its partitions of the 16 classes of `scenes`, as `methods.parallel.partitions` makes them with seed 0: by
# co-occurrence (CGP) and by dis-occurrence (DGP) for each k, and for k = 3 a control with random parts of the same
# sizes. A test recomputes them.
PARTITIONS: dict[tuple[int, str], dict[str, list[list[int]]]] = {
    (2, "both"): {
        "co": [[0, 4, 5, 7, 8, 9, 10, 13], [1, 2, 3, 6, 11, 12, 14, 15]],
        "dis": [[0, 1, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15], [2, 4, 9, 14]],
    },
    (3, "both"): {
        "co": [[0, 4, 5, 7, 8, 9, 13], [1, 2, 3, 10, 15], [6, 11, 12, 14]],
        "dis": [[0, 6, 7], [1, 3, 8, 11, 12, 13], [2, 4, 5, 9, 10, 14, 15]],
    },
    (4, "both"): {
        "co": [[0, 5, 9, 13], [1, 2, 3, 10, 15], [4, 7, 8, 12], [6, 11, 14]],
        "dis": [[0, 3, 6, 13], [1, 2, 5, 7, 10, 15], [4, 9, 14], [8, 11, 12]],
    },
    (3, "random"): {
        "co": [[0, 3, 11, 12], [1, 4, 5, 7, 15], [2, 6, 8, 9, 10, 13, 14]],
        "dis": [[0, 1, 4, 5, 6, 12], [2, 3, 14], [7, 8, 9, 10, 11, 13, 15]],
    },
    (1, "whole"): {"co": [[*range(16)]]},
}


def baseline(data: str = "scenes", seed: int = 0) -> Recipe:
    """Return the course's baseline: the small network, BCE (UD, Eq. 3), flips, cosine decay with a warm-up.

    A mirrored digit is no digit, so `digits` is shifted by up to two pixels instead of flipped.
    """
    moves = {"flip": False, "shift": 2} if data == "digits" else {}
    return recipe(data=data, seed=seed, **moves)


def tricks(data: str = "scenes") -> dict[str, list[Recipe]]:
    """Return the four combinations of Table 1's tricks, each with every seed."""
    return {name: [baseline(data, seed).but(**changes) for seed in SEEDS] for name, changes in TRICKS.items()}


def two_branch(lam: float, data: str = "scenes", **changes) -> list[Recipe]:
    """Return the baseline with the calibration branch at weight λ (UD, Eq. 12), with every seed.

    λ = 0 is the baseline itself. Further keyword arguments change settings of the recipe.
    """
    return [baseline(data, seed).but(lam=lam, **changes) for seed in SEEDS]


def sweep(data: str = "scenes") -> dict[float, list[Recipe]]:
    """Return the trained values of λ with every seed: all of them on `scenes`, the headline values on other data."""
    return {lam: two_branch(lam, data) for lam in (LAMBDAS if data == "scenes" else HEADLINE_LAMBDAS)}


def regimes() -> dict[tuple[str, float], list[Recipe]]:
    """Return three training regimes, each without and with the calibration branch."""
    return {(name, lam): two_branch(lam, **changes) for name, changes in REGIMES.items() for lam in REGIME_LAMBDAS}


def scales() -> dict[str, list[Recipe]]:
    """Return pairs that compare the paper's sum over classes with the released code's mean.

    On `scenes` with its 16 classes, λ = 0.1 beside a mean weighs as much as 1.6 beside a sum. Without clipping, the two
    then differ only by a factor of the whole loss, to which Adam is almost indifferent.
    """
    alike = {"released, lambda 0.1": {"lam": 0.1, "scale": "released"}, "paper, lambda 1.6": {"lam": 1.6}}
    return {
        "paper, lambda 0.1": two_branch(0.1),
        **{name: two_branch(**choices) for name, choices in alike.items()},
        **{f"{name}, no clipping": two_branch(**choices, clip=0.0) for name, choices in alike.items()},
    }


def by_size() -> dict[tuple[str, float], list[Recipe]]:
    """Return Table 2: networks of three sizes, without and with the calibration branch."""
    return {(network, lam): two_branch(lam, network=network) for network in NETWORKS for lam in (0.0, 0.1)}


def hard_labels() -> dict[str, list[Recipe]]:
    """Return Table 5's other ways to learn from hard labels."""
    return {name: [baseline(seed=seed).but(**changes) for seed in SEEDS] for name, changes in HARD_LABELS.items()}


def distilled(terms: str = "UD", data: str = "scenes", seeds=SEEDS, **changes) -> list[Recipe]:
    """Return a student that learns some of the `TERMS` from a teacher, with every seed.

    Student and teacher have the same seed, and both train as the baseline does. Further keyword arguments are settings
    of `methods.distillation.Settings`.
    """
    return [recipe("distillation", **{**baseline(data, seed).choices(), **TERMS[terms], **changes}) for seed in seeds]


def pairs() -> dict[tuple[str, str, str], list[Recipe]]:
    """Return Table 3: each student of each teacher, by KD and by UD."""
    return {
        (teacher, student, terms): distilled(terms, teacher=teacher, network=student)
        for teacher in TEACHERS
        for student in STUDENTS
        for terms in PAIR_TERMS
    }


def restarted() -> dict[str, list[Recipe]]:
    """Return Table 4: twice the epochs with one restart, on hard labels or by UD from the network's best self."""
    return {
        name: [recipe("self_distillation", **baseline(seed=seed).choices(), distil=distil) for seed in SEEDS]
        for name, distil in (("hard labels", False), ("UD", True))
    }


def restart_controls() -> dict[str, list[Recipe]]:
    """Return two controls of Table 4: a second half by KD alone, and as many epochs without a restart."""
    return {
        "KD": [recipe("self_distillation", **baseline(seed=seed).choices(), **TERMS["KD"]) for seed in SEEDS],
        "80 epochs": two_branch(0.1, epochs=80),
    }


def temperatures() -> dict[tuple[str, float], list[Recipe]]:
    """Return KD at several temperatures from each teacher, with three seeds."""
    return {
        (teacher, T): distilled("KD", seeds=SWEEP_SEEDS, teacher=teacher, temperature=T)
        for teacher in TEACHERS
        for T in TEMPERATURES
    }


def weights() -> dict[tuple[str, float], list[Recipe]]:
    """Return UD with other weights: α of Eq. 14, and β of Eq. 17.

    The recipes of α have no attention term and three seeds; those of β have every seed.
    """
    return {("alpha", value): distilled("KD + distribution", seeds=SWEEP_SEEDS, alpha=value) for value in ALPHAS} | {
        ("beta", value): distilled(beta=value) for value in BETAS
    }


def regimes_distilled() -> dict[tuple[str, str], list[Recipe]]:
    """Return the teacher and its students by KD and by UD, all trained in one regime, for each regime."""
    return {
        (regime, who): two_branch(0.1, network="small_wide", **changes)
        if who == "teacher"
        else distilled(who, **changes)
        for regime, changes in REGIMES.items()
        for who in ("teacher", *PAIR_TERMS)
    }


def averaged(seeds=SEEDS) -> list[Recipe]:
    """Return the baseline with PSD's running average of the weights and its short warm-up."""
    return [baseline(seed=seed).but(**AVERAGED) for seed in seeds]


def parallel(seeds=SEEDS, **choices) -> list[Recipe]:
    """Return PSD on some partitions; without any, its control: the asymmetric loss alone.

    The keyword arguments are settings of `methods.parallel.Settings`.
    """
    return [recipe("parallel", **baseline(seed=seed).choices(), **AVERAGED, **choices) for seed in seeds]


def partitioned() -> dict[tuple[int, str], list[Recipe]]:
    """Return PSD by k and strategy.

    k = 3 with both partitions has every seed. Three seeds have: other k, one partition alone, random parts, and k = 1,
    which is plain self-distillation.
    """
    students = {
        (k, name): parallel(SEEDS if (k, name) == (3, "both") else SWEEP_SEEDS, **parts)
        for (k, name), parts in PARTITIONS.items()
    }
    alone = {"CGP": "co", "DGP": "dis"}
    return students | {
        (k, name): parallel(SWEEP_SEEDS, **{group: PARTITIONS[k, "both"][group]})
        for k in (2, 3, 4)
        for name, group in alone.items()
    }


def specialists() -> dict[tuple[int, str], list[Recipe]]:
    """Return the teachers of `partitioned`, by k and the kind of their parts."""
    teachers: dict[tuple[int, str], list[Recipe]] = {}
    for (k, strategy), students in partitioned().items():
        for student in students if (k, strategy) in PARTITIONS else ():
            for name, teacher in method_of(student.method).needs(student).items():
                kind = strategy if strategy != "both" else {"co": "CGP", "dis": "DGP"}[name.split()[0]]
                teachers.setdefault((k, kind), []).append(teacher)
    return teachers


def detectors(proposals: str = "grid", seeds=SEEDS) -> list[Recipe]:
    """Return weakly-supervised detectors, trained as the baseline is: the teachers of `detected`."""
    return [recipe("detection", **baseline(seed=seed).choices(), part="teacher", proposals=proposals) for seed in seeds]


def detected(transfer: str = "both", seeds=SEEDS, **changes) -> list[Recipe]:
    """Return students of a detector of the same seed that learn its "features", its "predictions", or both.

    A student that learned neither would be the `baseline` itself.
    """
    return [recipe("detection", **{**baseline(seed=seed).choices(), "transfer": transfer, **changes}) for seed in seeds]


def detection() -> dict[str, list[Recipe]]:
    """Return the ablation of weakly-supervised detection, with its proposals.

    In "classifier", a plain classifier (the baseline of the same seed) takes the detector's place in stage 2. Proposals
    are a grid, selective search, or the annotated boxes as an upper bound. To train with selective search takes OpenCV,
    which is not part of the course's environment; to read its results does not.
    """
    arms = {
        "teacher, grid": detectors(),
        "both": detected(),
        "features": detected("features", SWEEP_SEEDS),
        "predictions": detected("predictions"),
        "classifier": detected("predictions", taught_by="classifier"),
    }
    for kind in ("boxes", "selective-search"):
        arms |= {
            f"teacher, {kind}": detectors(kind, SWEEP_SEEDS),
            f"both, {kind}": detected(seeds=SWEEP_SEEDS, proposals=kind),
        }
    return arms


def quick() -> list[Recipe]:
    """Return trainings that take seconds, which the tests repeat and compare with what ships."""
    return [baseline(seed=seed).but(network="small_narrow", limit=600, epochs=10) for seed in SEEDS]
