"""Losses: logits in, a scalar out; composite losses return a dict of named terms with `total`.

Shapes: logits and targets are (N, C), N images and C classes; targets hold 0 and 1 in any dtype. `ignore` is a bool
(N, C) mask, True = label left out of every sum, average and softmax. `reduction="none"` gives the (N,) losses of the
images instead of their mean; an image with nothing left counts as 0. Work is done in float32, in float64 for float64.

`scale="paper"` computes what the paper prints, `scale="released"` what the authors' code (LcDog/ud) is meant to
compute, with its slips repaired; each function that differs says how. The released weights are passed explicitly.

Every loss has the same form: it validates its arguments first, then computes.

Sources: UD = Song et al., Uncertainty Distillation, ACM MM 2021; ASL = Ridnik et al., ICCV 2021;
Mahajan = Mahajan et al., ECCV 2018.
"""

from udlib.losses.checks import Normalization, OverClasses, Reduction, Scale
from udlib.losses.distillation import attention_loss, bernoulli_kl, softmax_kl, uncertainty_distillation_loss
from udlib.losses.focusing import asymmetric_loss, focal_loss
from udlib.losses.hard_labels import (
    dual_branch_loss,
    label_smoothing_loss,
    one_over_k_softmax_loss,
    ova_loss,
    pal_n_loss,
    partial_softmax,
    pick_all_labels_marginals,
)

__all__ = [
    "Normalization",
    "OverClasses",
    "Reduction",
    "Scale",
    "asymmetric_loss",
    "attention_loss",
    "bernoulli_kl",
    "dual_branch_loss",
    "focal_loss",
    "label_smoothing_loss",
    "one_over_k_softmax_loss",
    "ova_loss",
    "pal_n_loss",
    "partial_softmax",
    "pick_all_labels_marginals",
    "softmax_kl",
    "uncertainty_distillation_loss",
]
