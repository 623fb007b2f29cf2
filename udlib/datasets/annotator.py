"""The simulated annotator: it marks an object by its visibility alone, so P(label | scene) is known."""

import numpy as np
from numpy.typing import ArrayLike

# The chance to be marked, π(v), climbs in a logistic curve from about LOWEST to HIGHEST, halfway up at CENTRE.
LOWEST, HIGHEST, CENTRE, WIDTH = 0.04, 0.98, 0.30, 0.08
DIFFICULT_BELOW = 0.40  # a marked object of less visibility than this is flagged `difficult`


def marking_probability(visibility: ArrayLike) -> np.ndarray:
    """π(v), the chance that the annotator marks an object of visibility v in [0, 1]; elementwise, rising in v.

    >>> bool(marking_probability(0.0) < 0.1 < 0.9 < marking_probability(1.0))
    True
    """
    v = np.asarray(visibility, dtype=np.float64)
    if v.size and not (0 <= v.min() and v.max() <= 1):  # written so that NaN is refused too
        raise ValueError(f"visibility spans {v.min()} to {v.max()}: expected numbers within 0 and 1")
    return LOWEST + (HIGHEST - LOWEST) / (1 + np.exp((CENTRE - v) / WIDTH))


def is_difficult(visibility: ArrayLike) -> np.ndarray:
    """True where an object, if it is marked at all, is flagged `difficult`."""
    return np.asarray(visibility) < DIFFICULT_BELOW


def annotate(visibility: ArrayLike, rng: np.random.Generator) -> np.ndarray:
    """One annotator's marks, bool of the shape of `visibility`: each object independently with chance π(v)."""
    chance = marking_probability(visibility)
    return rng.random(chance.shape) < chance


def label_posterior(class_index: ArrayLike, visibility: ArrayLike, num_classes: int) -> np.ndarray:
    """P(y_c = 1 | scene) = 1 − Π over the objects of class c of (1 − π(v)): (C,) float64.

    `class_index` and `visibility` (objects,) describe everything that was drawn, marked or not. A class that was not
    drawn gets 0.

    >>> label_posterior([1, 1], [0.2, 0.2], num_classes=2).round(4).tolist()
    [0.0, 0.4365]
    """
    unmarked = np.ones(num_classes)
    np.multiply.at(unmarked, np.asarray(class_index, dtype=np.intp), 1 - marking_probability(visibility))
    return 1 - unmarked
