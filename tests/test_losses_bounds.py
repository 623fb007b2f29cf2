"""What the losses refuse, and their defaults."""

import inspect
import math
import warnings
from types import SimpleNamespace

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
    "focal_loss": {"gamma": 2.0, "reduction": "mean"},
    "dual_branch_loss": {"lam": 0.1, "scale": "paper"},
    "bernoulli_kl": {"temperature": 1.0, "reduction": "mean", "over_classes": "mean"},
    "softmax_kl": {"temperature": 1.0, "reduction": "mean"},
    "attention_loss": {"normalize": False, "reduction": "mean", "scale": "paper"},
    "uncertainty_distillation_loss": {
        "alpha": 0.5,
        "beta": 0.5,
        "temperature": 1.0,
        "normalize": False,
        "scale": "paper",
        "over_classes": "mean",
    },
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_defaults_are_the_papers(name):
    parameters = inspect.signature(getattr(losses, name)).parameters
    assert {key: parameters[key].default for key in DEFAULTS[name]} == DEFAULTS[name]


@pytest.mark.parametrize("lacking", ["teacher", "student"])
def test_a_calibration_branch_that_either_network_lacks_is_named(lacking):
    branches = {
        name: SimpleNamespace(logits=batch(k)[0], calibration_logits=batch(k + 5)[0])
        for k, name in enumerate(("teacher", "student"))
    }
    branches[lacking].calibration_logits = None
    with pytest.raises(ValueError, match=f"alpha is 0.5 but {lacking}_calibration_logits is None: pass it, or alpha=0"):
        losses.uncertainty_distillation_loss(**branches, beta=0)
    assert losses.uncertainty_distillation_loss(**branches, alpha=0, beta=0)["calibration"] == 0


@pytest.mark.parametrize("lacking", ["teacher_map", "student_map"])
def test_an_attention_map_that_either_network_lacks_is_named(lacking):
    network = SimpleNamespace(logits=batch(1)[0], calibration_logits=None)
    maps = {"teacher_map": batch(2)[0][:, None], "student_map": batch(3)[0][:, None]} | {lacking: None}
    with pytest.raises(ValueError, match=f"beta is 0.5 but {lacking} is None"):
        losses.uncertainty_distillation_loss(network, network, alpha=0, **maps)


def test_no_loss_warns():
    logits, targets = batch()
    other, maps = batch(1)[0], logits[:, None]
    prediction = SimpleNamespace(logits=logits, calibration_logits=other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses.dual_branch_loss(prediction, targets)
        losses.uncertainty_distillation_loss(prediction, prediction, teacher_map=maps, student_map=maps[:, :, :3])
        names = ("one_over_k_softmax", "label_smoothing", "asymmetric", "focal")
        for name in names:
            getattr(losses, f"{name}_loss")(logits, targets)
