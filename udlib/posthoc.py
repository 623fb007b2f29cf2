"""Post-hoc calibration: small maps from logits to probabilities, fitted on a validation split and on nothing else.

`fit_…(logits, targets, ignore)` returns a calibrator; `calibrator(logits)` gives probabilities; `to_dict` and
`calibrator_from_dict` write it to JSON and read it back. Temperature, Platt and beta scaling are one family,

    p = σ(a·log σ(z) − b·log σ(−z) + c),  a, b ≥ 0,

since log σ(z) − log σ(−z) = z: temperature is a = b = 1/T, c = 0; Platt scaling a = b; beta calibration (Kull et al.,
2017) all three. With a, b ≥ 0 a class's ranking, and so its AP, stays (a = b = 0 makes it constant).
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from udlib.metrics.checks import checked_arrays, checked_numbers

# Bound on a and b: separable classes would send them to infinity.
STEEPEST = 100.0

# One coordinate of the points of a class's line; None where the class keeps the sigmoid.
Line = tuple[float, ...] | None


@dataclass(frozen=True)
class LogisticCalibrator:
    """Calibrator p = σ(a_c·log σ(z) − b_c·log σ(−z) + c_c) with three numbers for each class.

    Attributes:
        kind: key of `CALIBRATORS`.
        a: (C,) numbers, at least 0.
        b: (C,) numbers, at least 0.
        c: (C,) numbers.
        fallbacks: indices of the classes that could not be fitted and keep the sigmoid.
    """

    kind: str
    a: tuple[float, ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    fallbacks: tuple[int, ...] = ()

    def __call__(self, logits) -> torch.Tensor:
        """(N, C) logits → (N, C) probabilities, float64."""
        z = torch.from_numpy(_logits(logits, len(self.a)))
        a, b, c = (torch.tensor(x, dtype=torch.float64) for x in (self.a, self.b, self.c))
        return torch.sigmoid(a * torch.nn.functional.logsigmoid(z) - b * torch.nn.functional.logsigmoid(-z) + c)

    def to_dict(self) -> dict:
        """Plain lists and numbers, for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @property
    def temperatures(self) -> tuple[float, ...]:
        """T of each class; raises ValueError where the map is not of the form σ(z / T)."""
        if self.a != self.b or any(self.c):
            raise ValueError(f"{self.kind} scaling has no temperature: it is not of the form σ(z / T)")
        return tuple(1 / a for a in self.a)


@dataclass(frozen=True)
class IsotonicCalibrator:
    """Calibrator with a rising broken line for each class, flat outside its points.

    Attributes:
        logits: of the points, for each class; None stands for the sigmoid.
        probabilities: of the points, for each class.
        fallbacks: indices of the classes that could not be fitted and keep the sigmoid.
        kind: key of `CALIBRATORS`.
    """

    logits: tuple[Line, ...]
    probabilities: tuple[Line, ...]
    fallbacks: tuple[int, ...] = ()
    kind: str = "isotonic"

    def __call__(self, logits) -> torch.Tensor:
        """(N, C) logits → (N, C) probabilities, float64."""
        z = _logits(logits, len(self.logits))
        columns = [
            torch.sigmoid(torch.from_numpy(column)).numpy() if x is None or p is None else np.interp(column, x, p)
            for column, x, p in zip(z.T, self.logits, self.probabilities)
        ]
        return torch.from_numpy(np.stack(columns, axis=1))

    def to_dict(self) -> dict:
        """Plain lists and numbers, for JSON."""
        lines = {
            key: [None if line is None else list(line) for line in getattr(self, key)]
            for key in ("logits", "probabilities")
        }
        return {"kind": self.kind, **lines, "fallbacks": list(self.fallbacks)}


Calibrator = LogisticCalibrator | IsotonicCalibrator


def calibrator_from_dict(values: dict) -> Calibrator:
    """Restore the calibrator that `to_dict` wrote.

    Args:
        values: the dict, from JSON for example.

    Returns:
        The calibrator.

    Raises:
        ValueError: an unknown kind, missing or unknown keys.
    """
    kind = values.get("kind")
    if kind not in CALIBRATORS:
        raise ValueError(f"unknown kind {kind!r} of calibrator: expected one of {', '.join(CALIBRATORS)}")
    cls = IsotonicCalibrator if kind == "isotonic" else LogisticCalibrator
    keys = set(cls.__dataclass_fields__)
    if set(values) != keys:
        raise ValueError(f"a {kind} calibrator has the keys {sorted(values)}: expected {sorted(keys)}")
    return cls(**{key: _tuples(value) for key, value in values.items()})


def fit_temperature(logits, targets, ignore=None) -> LogisticCalibrator:
    """Fit one temperature for all classes: p = σ(z / T), where T minimises the NLL over all entries.

    Args:
        logits: (N, C) of a validation split, never of the split that the result is judged on.
        targets: (N, C) in {0, 1}, any dtype.
        ignore: (N, C) bool, True = leave out.

    Returns:
        The calibrator. Where all classes together lack a positive or a negative, T cannot be fitted: the sigmoid stays,
        a warning says so and `fallbacks` holds all classes.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: shapes that differ, targets outside {0, 1}, NaN or infinite logits.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    logits, targets, keep = _checked(logits, targets, ignore)

    z, y = logits[keep], targets[keep]
    classes = logits.shape[1]
    one_sided = _one_sided(y)
    inverse = 1.0 if one_sided else _fit([z], y, [(1 / STEEPEST, STEEPEST)])[0]
    scale = (inverse,) * classes
    fallbacks = _warn("temperature", range(classes) if one_sided else [])
    return LogisticCalibrator("temperature", scale, scale, (0.0,) * classes, fallbacks)


def fit_label_temperature(logits, targets, ignore=None) -> LogisticCalibrator:
    """Fit a temperature for each class: p_c = σ(z_c / T_c).

    Args:
        logits: (N, C) of a validation split, never of the split that the result is judged on.
        targets: (N, C) in {0, 1}, any dtype.
        ignore: (N, C) bool, True = leave out.

    Returns:
        The calibrator. Classes without a positive or without a negative cannot be fitted: they keep the sigmoid, a
        warning names them and `fallbacks` holds their indices.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: shapes that differ, targets outside {0, 1}, NaN or infinite logits.
    """

    def fit_one(z, y):
        (scale,) = _fit([z], y, [(1 / STEEPEST, STEEPEST)])
        return scale, scale, 0.0

    return _per_class("label-temperature", fit_one, logits, targets, ignore)


def fit_platt(logits, targets, ignore=None) -> LogisticCalibrator:
    """Fit Platt scaling of each class: p_c = σ(a_c z_c + c_c), with Platt's softened targets.

    (n₊ + 1)/(n₊ + 2) stands for 1 and 1/(n₋ + 2) for 0, so that a class of few positives is not driven to certainty.

    Args:
        logits: (N, C) of a validation split, never of the split that the result is judged on.
        targets: (N, C) in {0, 1}, any dtype.
        ignore: (N, C) bool, True = leave out.

    Returns:
        The calibrator. Classes without a positive or without a negative cannot be fitted: they keep the sigmoid, a
        warning names them and `fallbacks` holds their indices.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: shapes that differ, targets outside {0, 1}, NaN or infinite logits.

    Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999.
    """

    def fit_one(z, y):
        positives = y.sum()
        soft = np.where(y, (positives + 1) / (positives + 2), 1 / (len(y) - positives + 2))
        scale, shift = _fit([z, np.ones_like(z)], soft, [(0, STEEPEST), (None, None)])
        return scale, scale, shift

    return _per_class("platt", fit_one, logits, targets, ignore)


def fit_beta(logits, targets, ignore=None) -> LogisticCalibrator:
    """Fit beta calibration of each class: p = σ(a·log σ(z) − b·log σ(−z) + c) with a, b ≥ 0 and c free.

    Args:
        logits: (N, C) of a validation split, never of the split that the result is judged on.
        targets: (N, C) in {0, 1}, any dtype.
        ignore: (N, C) bool, True = leave out.

    Returns:
        The calibrator. Classes without a positive or without a negative cannot be fitted: they keep the sigmoid, a
        warning names them and `fallbacks` holds their indices.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: shapes that differ, targets outside {0, 1}, NaN or infinite logits.

    Source: Kull et al., Beta Calibration, AISTATS 2017.
    """

    def fit_one(z, y):
        log_p, log_q = -np.logaddexp(0, -z), -np.logaddexp(0, z)
        return _fit([log_p, -log_q, np.ones_like(z)], y, [(0, STEEPEST), (0, STEEPEST), (None, None)])

    return _per_class("beta", fit_one, logits, targets, ignore)


def fit_isotonic(logits, targets, ignore=None) -> IsotonicCalibrator:
    """Fit isotonic regression of each class: the rising step function nearest to the targets, joined by straight lines.

    Equal probabilities on its flat parts make ties, so AP can change.

    Args:
        logits: (N, C) of a validation split, never of the split that the result is judged on.
        targets: (N, C) in {0, 1}, any dtype.
        ignore: (N, C) bool, True = leave out.

    Returns:
        The calibrator. Classes without a positive or without a negative cannot be fitted: they keep the sigmoid, a
        warning names them and `fallbacks` holds their indices.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: shapes that differ, targets outside {0, 1}, NaN or infinite logits.
    """
    logits, targets, keep = _checked(logits, targets, ignore)

    points: list[Line] = []
    heights: list[Line] = []
    for z, y, k in zip(logits.T, targets.T, keep.T):
        if _one_sided(y[k]):
            points.append(None)
            heights.append(None)
            continue
        model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(z[k], y[k])
        points.append(tuple(model.X_thresholds_.tolist()))
        heights.append(tuple(model.y_thresholds_.tolist()))
    fallbacks = _warn("isotonic", [c for c, x in enumerate(points) if x is None])
    return IsotonicCalibrator(tuple(points), tuple(heights), fallbacks)


CALIBRATORS = {
    "temperature": fit_temperature,
    "label-temperature": fit_label_temperature,
    "platt": fit_platt,
    "beta": fit_beta,
    "isotonic": fit_isotonic,
}


def _per_class(kind: str, fit_one, logits, targets, ignore) -> LogisticCalibrator:
    """Fit each class alone: `fit_one(z, y)` gives its a, b and c."""
    logits, targets, keep = _checked(logits, targets, ignore)

    parameters, fallbacks = [], []
    for index, (z, y, k) in enumerate(zip(logits.T, targets.T, keep.T)):
        if _one_sided(y[k]):
            fallbacks.append(index)
            parameters.append((1.0, 1.0, 0.0))  # the sigmoid
        else:
            parameters.append(tuple(fit_one(z[k], y[k])))
    a, b, c = zip(*parameters)
    return LogisticCalibrator(kind, a, b, c, _warn(kind, fallbacks))


def _fit(features: list[np.ndarray], targets: np.ndarray, bounds) -> list[float]:
    """Logistic regression within bounds, which scikit-learn's lacks; convex, so it finds the minimum from any start."""
    x = np.stack(features, axis=1)

    def loss_and_gradient(weights):
        score = x @ weights
        residual = 0.5 * (1 + np.tanh(score / 2)) - targets  # σ(score) − y without overflow
        return np.mean(np.logaddexp(0, score) - targets * score), x.T @ residual / len(targets)

    start = [1.0 if low is not None else 0.0 for low, _ in bounds]  # the identity
    tight = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1000}
    return minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds, options=tight).x.tolist()


def _checked(logits, targets, ignore) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Validated logits (float64), targets (bool) and entries to keep (bool), all (N, C)."""
    logits, targets, keep = checked_arrays(logits, targets, ignore, "logits")
    keep = np.ones_like(targets) if keep is None else keep
    if np.isinf(logits[keep]).any():
        raise ValueError(
            "logits hold infinite values: clamp them, or take the network's logits instead of log(p / (1 − p))"
        )
    return logits.astype(np.float64), targets, keep


def _logits(logits, classes: int) -> np.ndarray:
    """Validated logits (N, C), float64, of as many classes as the calibrator has."""
    logits, _ = checked_numbers(logits, None, "logits")
    if logits.shape[1] != classes:
        raise ValueError(
            f"logits have {logits.shape[1]} classes, but the calibrator was fitted on {classes}: give it as many"
        )
    return logits.astype(np.float64)


def _one_sided(targets: np.ndarray) -> bool:
    """Whether there is no positive or no negative."""
    return bool(targets.all() or not targets.any())


def _warn(kind: str, classes) -> tuple[int, ...]:
    """Name the classes that keep the sigmoid in a warning, and return them."""
    classes = tuple(classes)
    if classes:
        warnings.warn(
            f"{kind} calibration: classes {list(classes)} have no positive or no negative in the validation "
            "split and keep the plain sigmoid",
            stacklevel=3,
        )
    return classes


def _tuples(value):
    """Nested lists as nested tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
