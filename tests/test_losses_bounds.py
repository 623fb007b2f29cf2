"""What the losses refuse, and their defaults."""

import inspect
import math

import pytest
from test_losses import batch

from udlib import losses


@pytest.mark.parametrize("margin", [-0.05, 1.0, 1.5, 2.0, math.nan])
def test_the_margin_of_the_asymmetric_loss_is_a_probability_below_one(margin):
    logits, targets = batch()
    with pytest.raises(ValueError, match=f"margin is {margin}: expected a probability below 1"):
        losses.asymmetric_loss(logits, targets, margin=margin)
    for allowed in (0.0, 0.999):
        assert losses.asymmetric_loss(logits, targets, margin=allowed).isfinite()


@pytest.mark.parametrize("name", ["gamma_neg", "gamma_pos"])
def test_a_focusing_exponent_is_at_least_zero(name):
    logits, targets = batch()
    with pytest.raises(ValueError, match=f"{name} is -0.5: expected at least 0"):
        losses.asymmetric_loss(logits, targets, **{name: -0.5})
    assert losses.asymmetric_loss(logits, targets, **{name: 0}).isfinite()


DEFAULTS = {
    "ova_loss": {"reduction": "mean", "scale": "paper"},
    "partial_softmax": {"temperature": 1.0},
    "pal_n_loss": {"reduction": "mean", "temperature": 1.0},
    "label_smoothing_loss": {"target_logit": 9.0},
    "asymmetric_loss": {"gamma_neg": 4.0, "gamma_pos": 0.0, "margin": 0.05, "reduction": "mean"},
    "dual_branch_loss": {"lam": 0.1, "scale": "paper"},
    "bernoulli_kl": {"temperature": 1.0, "reduction": "mean"},
    "softmax_kl": {"temperature": 1.0, "reduction": "mean"},
    "attention_loss": {"normalize": False, "reduction": "mean", "scale": "paper"},
    "uncertainty_distillation_loss": {
        "alpha": 0.5,
        "beta": 0.5,
        "temperature": 1.0,
        "normalize": False,
        "scale": "paper",
    },
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_defaults_are_the_papers(name):
    parameters = inspect.signature(getattr(losses, name)).parameters
    assert {key: parameters[key].default for key in DEFAULTS[name]} == DEFAULTS[name]
