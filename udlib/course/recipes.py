"""The recipes of the course, by group: what `udlib runs` trains and the lessons load."""

from __future__ import annotations

from fnmatch import fnmatch

from udlib.methods import method_of, recipe
from udlib.methods.base import Recipe

SEEDS = range(5)

# λ of UD's Eq. 12. The paper chooses 0.1; the sweep covers the course's main data set, the headline values the others.
LAMBDAS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
HEADLINE_LAMBDAS = (0.0, 0.1, 1.0)

# Table 1 of UD asks what two tricks are worth: CutOut (random erasing) and cosine decay of the learning rate.
TRICKS = {
    "neither": {"erase": 0.0, "schedule": "step"},
    "CutOut": {"erase": 0.5, "schedule": "step"},
    "cosine decay": {"erase": 0.0, "schedule": "one-cycle"},
    "both": {"erase": 0.5, "schedule": "one-cycle"},
}


# How much a network can overfit decides what there is to calibrate: the course's regime, and one on either side of it.
REGIMES = {"no augmentation": {"flip": False}, "flips": {}, "CutOut": {"erase": 0.5}}
REGIME_LAMBDAS = (0.0, 1.0)

# Table 2 of UD asks networks of several sizes; Table 3 teaches two students by two teachers.
NETWORKS = ("small_narrow", "small", "small_wide")
TEACHERS = ("small_wide", "small")
STUDENTS = ("small", "small_narrow")

# What a student learns from: the teacher's sigmoids alone (Eq. 13), its calibration branch too (Eq. 14), or all of Eq. 18.
TERMS = {"KD": {"alpha": 0.0, "beta": 0.0}, "KD + distribution": {"beta": 0.0}, "UD": {}}
METHODS = ("KD", "UD")
TEMPERATURES = (1.0, 3.0, 5.0)
ALPHAS = (0.0, 0.5, 2.0)  # the paper has 0.5
BETAS = (0.0, 0.005, 0.05, 0.5)  # likewise, and far below it: Eq. 17 is a norm over cells, beside a mean over classes
SWEEP_SEEDS = range(3)

# The hard-label rows of Table 5.
HARD_LABELS = {
    "softmax, T = 3": {"loss": "softmax"},
    "label smoothing": {"loss": "label-smoothing"},
    "1/k softmax": {"loss": "one-over-k"},
}

# How Parallel Self-Distillation (PSD) trains: a short warm-up, and a running average of the weights.
AVERAGED = {"warm_up": 0.1, "ema": 0.065}
# Its partitions of the 16 classes of `scenes` (`parallel.partitions`, seed 0): of co-occurrence (CGP) and of dis-occurrence
# (DGP) for each k, and for k = 3 the control, parts of the same sizes at random. A test makes them again.
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
    """The course's baseline: the small network, BCE (UD, Eq. 3), flips, cosine decay with a warm-up.

    A mirrored digit is no digit, so `digits` is shifted by up to two pixels instead of flipped.
    """
    moves = {"flip": False, "shift": 2} if data == "digits" else {}
    return recipe(data=data, seed=seed, **moves)


def tricks(data: str = "scenes") -> dict[str, list[Recipe]]:
    """The four combinations of Table 1's tricks, each with every seed."""
    return {name: [baseline(data, seed).but(**changes) for seed in SEEDS] for name, changes in TRICKS.items()}


def two_branch(lam: float, data: str = "scenes", **changes) -> list[Recipe]:
    """The baseline with the calibration branch at weight λ (UD, Eq. 12), with every seed; λ = 0 is the baseline itself."""
    return [baseline(data, seed).but(lam=lam, **changes) for seed in SEEDS]


def sweep(data: str = "scenes") -> dict[float, list[Recipe]]:
    """The trained values of λ, each with every seed: the whole grid on `scenes`, the headline values elsewhere."""
    return {lam: two_branch(lam, data) for lam in (LAMBDAS if data == "scenes" else HEADLINE_LAMBDAS)}


def regimes() -> dict[tuple[str, float], list[Recipe]]:
    """Three training regimes, each without the calibration branch and with it."""
    return {(name, lam): two_branch(lam, **changes) for name, changes in REGIMES.items() for lam in REGIME_LAMBDAS}


def scales() -> dict[str, list[Recipe]]:
    """The paper's sum over classes against the released code's mean: on `scenes`, λ = 0.1 beside a mean is 1.6 beside a sum.

    Without clipping, the two differ by a factor of the whole loss alone, which Adam hardly sees.
    """
    alike = {"released, lambda 0.1": {"lam": 0.1, "scale": "released"}, "paper, lambda 1.6": {"lam": 1.6}}
    return {
        "paper, lambda 0.1": two_branch(0.1),
        **{name: two_branch(**choices) for name, choices in alike.items()},
        **{f"{name}, no clipping": two_branch(**choices, clip=0.0) for name, choices in alike.items()},
    }


def by_size() -> dict[tuple[str, float], list[Recipe]]:
    """Table 2: networks of three sizes, without the calibration branch and with it."""
    return {(network, lam): two_branch(lam, network=network) for network in NETWORKS for lam in (0.0, 0.1)}


def hard_labels() -> dict[str, list[Recipe]]:
    """Table 5's other ways to learn from hard labels."""
    return {name: [baseline(seed=seed).but(**changes) for seed in SEEDS] for name, changes in HARD_LABELS.items()}


def distilled(terms: str = "UD", data: str = "scenes", seeds=SEEDS, **changes) -> list[Recipe]:
    """A student of a teacher (see `methods.distillation.Settings`) on some of the `TERMS`, with every seed.

    Student and teacher have the same seed, and train as the baseline does.
    """
    return [recipe("distillation", **{**baseline(data, seed).choices(), **TERMS[terms], **changes}) for seed in seeds]


def pairs() -> dict[tuple[str, str, str], list[Recipe]]:
    """Table 3: each student of each teacher, by KD and by UD."""
    return {
        (teacher, student, terms): distilled(terms, teacher=teacher, network=student)
        for teacher in TEACHERS
        for student in STUDENTS
        for terms in METHODS
    }


def restarted() -> dict[str, list[Recipe]]:
    """Table 4: twice the epochs with one restart, on hard labels throughout or by UD from the network's best self."""
    return {
        name: [recipe("self_distillation", **baseline(seed=seed).choices(), distil=distil) for seed in SEEDS]
        for name, distil in (("hard labels", False), ("UD", True))
    }


def restart_controls() -> dict[str, list[Recipe]]:
    """What Table 4 leaves open: a second half by KD alone, and twice the epochs in one schedule, without a restart."""
    return {
        "KD": [recipe("self_distillation", **baseline(seed=seed).choices(), **TERMS["KD"]) for seed in SEEDS],
        "80 epochs": two_branch(0.1, epochs=80),
    }


def temperatures() -> dict[tuple[str, float], list[Recipe]]:
    """KD at several temperatures from each teacher; three seeds."""
    return {
        (teacher, T): distilled("KD", seeds=SWEEP_SEEDS, teacher=teacher, temperature=T)
        for teacher in TEACHERS
        for T in TEMPERATURES
    }


def weights() -> dict[tuple[str, float], list[Recipe]]:
    """UD with other weights: α of Eq. 14 where there is no attention term (three seeds), and β of Eq. 17 with every seed."""
    return {("alpha", value): distilled("KD + distribution", seeds=SWEEP_SEEDS, alpha=value) for value in ALPHAS} | {
        ("beta", value): distilled(beta=value) for value in BETAS
    }


def regimes_distilled() -> dict[tuple[str, str], list[Recipe]]:
    """The teacher and its students by KD and by UD, all in one regime of training."""
    return {
        (regime, who): two_branch(0.1, network="small_wide", **changes)
        if who == "teacher"
        else distilled(who, **changes)
        for regime, changes in REGIMES.items()
        for who in ("teacher", *METHODS)
    }


def averaged(seeds=SEEDS) -> list[Recipe]:
    """The baseline with the running average of the weights and the short warm-up that PSD has."""
    return [baseline(seed=seed).but(**AVERAGED) for seed in seeds]


def parallel(seeds=SEEDS, **choices) -> list[Recipe]:
    """PSD on the given partitions (see `methods.parallel.Settings`); without any, its control: the asymmetric loss alone."""
    return [recipe("parallel", **baseline(seed=seed).choices(), **AVERAGED, **choices) for seed in seeds]


def partitioned() -> dict[tuple[int, str], list[Recipe]]:
    """PSD by k and strategy: every seed for k = 3 with both partitions; three for other k, one partition alone, parts at
    random, and k = 1, plain self-distillation."""
    found = {
        (k, name): parallel(SEEDS if (k, name) == (3, "both") else SWEEP_SEEDS, **parts)
        for (k, name), parts in PARTITIONS.items()
    }
    alone = {"CGP": "co", "DGP": "dis"}
    return found | {
        (k, name): parallel(SWEEP_SEEDS, **{group: PARTITIONS[k, "both"][group]})
        for k in (2, 3, 4)
        for name, group in alone.items()
    }


def specialists() -> dict[tuple[int, str], list[Recipe]]:
    """The teachers of `partitioned`, by k and the kind of their parts."""
    found: dict[tuple[int, str], list[Recipe]] = {}
    for (k, strategy), students in partitioned().items():
        for chosen in students if (k, strategy) in PARTITIONS else ():
            for name, teacher in method_of(chosen.method).needs(chosen).items():
                kind = strategy if strategy != "both" else {"co": "CGP", "dis": "DGP"}[name.split()[0]]
                found.setdefault((k, kind), []).append(teacher)
    return found


def detectors(proposals: str = "grid", seeds=SEEDS) -> list[Recipe]:
    """Weakly-supervised detectors, trained as the baseline is: the teachers of `detected`."""
    return [recipe("detection", **baseline(seed=seed).choices(), part="teacher", proposals=proposals) for seed in seeds]


def detected(transfer: str = "both", seeds=SEEDS, **changes) -> list[Recipe]:
    """Students of a detector of the same seed, taught its "features", its "predictions", or both.

    One taught nothing is the `baseline` itself.
    """
    return [recipe("detection", **{**baseline(seed=seed).choices(), "transfer": transfer, **changes}) for seed in seeds]


def detection() -> dict[str, list[Recipe]]:
    """The ablation of weakly-supervised detection; its stage 2 with a plain classifier, the baseline of the same seed, in the
    detector's place ("classifier"); and its proposals: a grid, selective search, and the annotated boxes as the upper bound.

    To train with selective search takes OpenCV, which is no part of the course's environment; to read its results does not.
    """
    found = {
        "teacher, grid": detectors(),
        "both": detected(),
        "features": detected("features", SWEEP_SEEDS),
        "predictions": detected("predictions"),
        "classifier": detected("predictions", taught_by="classifier"),
    }
    for kind in ("boxes", "selective-search"):
        found |= {
            f"teacher, {kind}": detectors(kind, SWEEP_SEEDS),
            f"both, {kind}": detected(seeds=SWEEP_SEEDS, proposals=kind),
        }
    return found


def quick() -> list[Recipe]:
    """Trainings of seconds, which the tests repeat and hold against what ships."""
    return [baseline(seed=seed).but(network="small_narrow", limit=600, epochs=10) for seed in SEEDS]


def groups() -> dict[str, list[Recipe]]:
    """All recipes of the course, whose results ship, by the name of the question they answer; one may stand in several."""
    named = {f"tricks/{name}": recipes for name, recipes in tricks().items()}
    named |= {"digits/both": [baseline("digits", seed).but(**TRICKS["both"]) for seed in SEEDS]}
    named |= {f"lambda/{lam:g}": recipes for lam, recipes in sweep().items()}
    named |= {f"digits/lambda {lam:g}": recipes for lam, recipes in sweep("digits").items()}
    named |= {f"regimes/{name}, lambda {lam:g}": recipes for (name, lam), recipes in regimes().items()}
    named |= {f"pooling/max, lambda {lam:g}": two_branch(lam, pooling="max") for lam in (0.0, 0.1)}
    named |= {f"scale/{name}": recipes for name, recipes in scales().items()}
    named |= {f"size/{network}, lambda {lam:g}": recipes for (network, lam), recipes in by_size().items()}
    named |= {f"hard labels/{name}": recipes for name, recipes in hard_labels().items()}
    named |= {
        f"distilled/{teacher} to {student}, {terms}": recipes for (teacher, student, terms), recipes in pairs().items()
    }
    named |= {"distilled/small_wide to small, KD + distribution": distilled("KD + distribution")}
    named |= {"distilled/small_wide to small, UD, maps standardised": distilled(normalize=True)}
    named |= {"distilled/small_wide to small, UD, w held constant": distilled(seeds=SWEEP_SEEDS, through_weights=False)}
    named |= {f"restart/{name}": recipes for name, recipes in (restarted() | restart_controls()).items()}
    named |= {f"temperature/{teacher}, T = {T:g}": recipes for (teacher, T), recipes in temperatures().items()}
    named |= {f"{name}/{value:g}": recipes for (name, value), recipes in weights().items()}
    named |= {f"regimes/{regime}, {who}": recipes for (regime, who), recipes in regimes_distilled().items()}
    named |= {"digits/teacher": two_branch(0.1, "digits", network="small_wide")}
    named |= {f"digits/{terms}": distilled(terms, "digits") for terms in METHODS}
    named |= {"averaged": averaged(), "parallel/no teacher": parallel()}
    named |= {f"parallel/teachers, k = {k}, {kind}": recipes for (k, kind), recipes in specialists().items()}
    named |= {f"parallel/k = {k}, {strategy}": recipes for (k, strategy), recipes in partitioned().items()}
    named |= {f"detection/{name}": recipes for name, recipes in detection().items()}
    return named | {"quick": quick()}


def keeps_weights(chosen: Recipe) -> bool:
    """Whether the trained network itself ships, for looking inside one: seed 0 of each baseline, of the paper's λ, of the
    teacher, of its students with and without the attention term, of PSD's student and of two of its teachers, of a part with
    the boat each, of the asymmetric loss alone, and of the detector."""
    branched, taught = baseline().but(lam=0.1), partitioned()[3, "both"][0]
    specialised = [method_of(taught.method).needs(taught)[name] for name in ("co 2", "dis 2")]
    return chosen in (
        baseline(),
        baseline("digits"),
        branched,
        branched.but(network="small_wide"),
        distilled("KD + distribution")[0],
        distilled()[0],
        taught,
        parallel()[0],
        *specialised,
        detectors()[0],
    )


def teaches(chosen: Recipe) -> bool:
    """Whether a recipe of the course needs the trained network of this one."""
    return any(
        chosen in method_of(other.method).needs(other).values() for found in groups().values() for other in found
    )


def keeps_branch(chosen: Recipe) -> bool:
    """Whether the calibration branch's logits on test ship too: in the sweep on `scenes`. The budget is for what lessons read."""
    return any(chosen in recipes for recipes in sweep().values())


# Groups of which the lessons read metrics and histories only; their logits would fill the budget.
METRICS_ONLY = (
    "tricks/CutOut",
    "digits/both",
    "digits/teacher",
    "digits/?D",
    "scale/*",
    "pooling/*",
    "size/small_narrow*",
    "size/small_wide, lambda 0",
    "*to small_narrow*",
    "*maps standardised",
    "*w held constant",
    "alpha/*",
    "regimes/*, teacher",
    "regimes/*, ?D",
    "restart/KD",
    "restart/80 epochs",
    "parallel/teachers, k = [124]*",
    "parallel/teachers, k = 3, random",
    "parallel/k = [124]*",
    "parallel/k = 3, [CDr]*",
    "detection/features",
    "detection/predictions",
    "detection/classifier",
    "detection/*, boxes",
    "detection/*, selective-search",
)


def keeps_logits(chosen: Recipe) -> bool:
    """Whether the logits ship: where some group that holds the recipe is not among METRICS_ONLY."""
    return any(
        chosen in found for name, found in groups().items() if not any(fnmatch(name, rule) for rule in METRICS_ONLY)
    )


def select(only: str | None = None) -> dict[str, list[Recipe]]:
    """The groups whose name matches a pattern (`tricks*`, `digits`), or that hold a recipe of this key; all without a
    pattern.

    Raises ValueError where nothing matches.
    """
    every = groups()
    if only is None:
        return every
    found = {name: recipes for name, recipes in every.items() if fnmatch(name, only) or name.startswith(only)}
    if not found:
        found = {name: [r for r in recipes if r.key == only] for name, recipes in every.items()}
        found = {name: recipes for name, recipes in found.items() if recipes}
    if not found:
        raise ValueError(f"no recipe matches '{only}': choose a pattern for {', '.join(every)}, or a run's key")
    return found
