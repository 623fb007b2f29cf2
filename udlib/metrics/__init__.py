"""Ranking and decision metrics for multi-label predictions: AP by three conventions, CP/CR/CF1/OP/OR/OF1.

Every function takes tensors, arrays or lists of shape (N, C): N images, C labels; `ignore` is a bool mask of the same
shape, True where an entry is left out (VOC's difficult objects, for example). The value of an ignored entry never
matters, not even NaN. Results are fractions, not per cent.

Every metric has the same form: it validates its arguments first, then computes.
"""

from udlib.metrics.decisions import difficult_subset, precision_recall_f1
from udlib.metrics.ranking import AP_VARIANTS, average_precision, mean_average_precision
from udlib.metrics.thresholds import best_thresholds

__all__ = [
    "AP_VARIANTS",
    "average_precision",
    "best_thresholds",
    "difficult_subset",
    "mean_average_precision",
    "precision_recall_f1",
]
