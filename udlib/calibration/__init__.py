"""How far probabilities are from frequencies: ECE and its variants, reliability curves, proper scores and their floors.

Every function takes tensors, arrays or lists of shape (N, C). Probabilities are P(y = 1) as fractions in [0, 1], so the
bins cover [0, 1], unlike the confidence max(p, 1 − p) of single-label work. `ignore` (bool, True = leave out) drops
entries whatever their value. Results are fractions (scores: nats for NLL), not per cent.

Every measure has the same form: it validates its arguments first, then computes.
"""

from udlib.calibration.binning import AVERAGES, BINNINGS, ReliabilityCurve
from udlib.calibration.errors import (
    calibration_noise,
    confident_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    reliability_curve,
    true_calibration_error,
)
from udlib.calibration.intervals import calibration_interval
from udlib.calibration.scores import (
    brier_score,
    expected_brier_floor,
    expected_nll_floor,
    negative_log_likelihood,
)

__all__ = [
    "AVERAGES",
    "BINNINGS",
    "ReliabilityCurve",
    "brier_score",
    "calibration_interval",
    "calibration_noise",
    "confident_calibration_error",
    "expected_brier_floor",
    "expected_calibration_error",
    "expected_nll_floor",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "reliability_curve",
    "true_calibration_error",
]
