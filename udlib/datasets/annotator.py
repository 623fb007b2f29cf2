"""The simulated annotator: it marks an object with a probability that depends on its visibility alone.

Therefore P(label | scene) is known exactly.
"""

import numpy as np
from numpy.typing import ArrayLike

# The probability π(v) to be marked rises in a logistic curve from about LOWEST to HIGHEST, and is halfway at CENTRE.
LOWEST, HIGHEST, CENTRE, WIDTH = 0.04, 0.98, 0.30, 0.08
DIFFICULT_BELOW = 0.40  # a marked object with a visibility below this is flagged `difficult`


def marking_probability(visibility: ArrayLike) -> np.ndarray:
    """Compute π(v), the probability that the annotator marks an object of visibility v.

    Args:
        visibility: Numbers in [0, 1], of any shape.

    Returns:
        float64 of the same shape; it rises with v.

    Raises:
        ValueError: A number is outside [0, 1] or NaN.

    Example:
        >>> bool(marking_probability(0.0) < 0.1 < 0.9 < marking_probability(1.0))
        True
    """
    v = np.asarray(visibility, dtype=np.float64)
    if v.size and not (0 <= v.min() and v.max() <= 1):  # written so that NaN is refused too
        raise ValueError(f"visibility spans {v.min()} to {v.max()}: expected numbers within 0 and 1")
    return LOWEST + (HIGHEST - LOWEST) / (1 + np.exp((CENTRE - v) / WIDTH))


def is_difficult(visibility: ArrayLike) -> np.ndarray:
    """Tell which objects are flagged `difficult` if they are marked at all.

    Args:
        visibility: Numbers in [0, 1], of any shape.

    Returns:
        Bool of the same shape.
    """
    return np.asarray(visibility) < DIFFICULT_BELOW


def annotate(visibility: ArrayLike, rng: np.random.Generator) -> np.ndarray:
    """Draw one annotator's marks: each object is marked independently with probability π(v).

    Args:
        visibility: Numbers in [0, 1], of any shape.
        rng: Where the random numbers come from.

    Returns:
        Bool of the same shape, True for marked objects.
    """
    chance = marking_probability(visibility)
    return rng.random(chance.shape) < chance


def label_posterior(class_index: ArrayLike, visibility: ArrayLike, num_classes: int) -> np.ndarray:
    """Compute P(y_c = 1 | scene) = 1 − Π (1 − π(v)), the product over the objects of class c.

    Args:
        class_index: The class of each object that was drawn, marked or not.
        visibility: Its visibility in [0, 1].
        num_classes: Number of classes C.

    Returns:
        float64 (C,); 0 for a class that was not drawn.

    Example:
        >>> label_posterior([1, 1], [0.2, 0.2], num_classes=2).round(4).tolist()
        [0.0, 0.4365]
    """
    unmarked = np.ones(num_classes)
    np.multiply.at(unmarked, np.asarray(class_index, dtype=np.intp), 1 - marking_probability(visibility))
    return 1 - unmarked
