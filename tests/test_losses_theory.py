"""What the paper claims of the losses, properties that hold for any input, and the errors on bad input."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from udlib import losses

HARD = {
    "ova": losses.ova_loss,
    "pal_n": losses.pal_n_loss,
    "one_over_k": losses.one_over_k_softmax_loss,
    "label_smoothing": losses.label_smoothing_loss,
    "asymmetric": losses.asymmetric_loss,
}
KL = {"bernoulli": losses.bernoulli_kl, "softmax": losses.softmax_kl}

# The seven label vectors of three classes with at least one label, and a joint distribution over them.
LABELS = torch.tensor([y for y in product([0, 1], repeat=3) if any(y)])
JOINT = torch.tensor([0.16, 0.10, 0.06, 0.22, 0.18, 0.08, 0.20], dtype=torch.float64)


def expected_loss(loss, z):
    """Exact expectation over the joint distribution of a predictor that says z for every image."""
    return JOINT @ loss(z.expand(len(LABELS), -1), LABELS, reduction="none")


def minimiser(loss):
    z = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [z], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        value = expected_loss(loss, z)
        value.backward()
        return value

    optimiser.step(closure)
    closure()
    assert z.grad.abs().max() < 1e-9
    return z.detach()


def test_z_prime_of_eq_7_equals_the_sum_that_defines_it():
    z_prime = losses.pick_all_labels_marginals(LABELS, JOINT)
    for i in range(3):
        present = sum(p for y, p in zip(LABELS.tolist(), JOINT.tolist()) if y[i])
        inverse = sum(p / (1 + sum(y) - y[i]) for y, p in zip(LABELS.tolist(), JOINT.tolist()) if y[i]) / present
        assert z_prime[i].item() == pytest.approx(present * inverse)
    assert z_prime.sum().item() == pytest.approx(1)


def test_z_prime_is_the_frequency_of_a_positive_label_picked_at_random():
    g = torch.Generator().manual_seed(0)
    drawn = LABELS[torch.multinomial(JOINT, 200_000, replacement=True, generator=g)]
    picked = torch.multinomial(drawn.double(), 1, generator=g)[:, 0]
    frequency = torch.bincount(picked, minlength=3) / len(picked)
    torch.testing.assert_close(frequency.double(), losses.pick_all_labels_marginals(LABELS, JOINT), atol=0.005, rtol=0)


def test_z_prime_loses_the_probability_of_no_label_at_all():
    found = losses.pick_all_labels_marginals(torch.tensor([[0, 0], [1, 1]]), torch.tensor([0.3, 0.7]))
    torch.testing.assert_close(found, torch.tensor([0.35, 0.35]))


def test_proposition_1_the_two_risks_are_those_of_the_marginals_and_of_z_prime():
    z = torch.tensor([0.4, -1.1, 0.7], dtype=torch.float64)
    marginals, z_prime = JOINT @ LABELS.double(), losses.pick_all_labels_marginals(LABELS, JOINT)
    binary = -(marginals * torch.sigmoid(z).log() + (1 - marginals) * (1 - torch.sigmoid(z)).log()).sum()
    torch.testing.assert_close(expected_loss(losses.ova_loss, z), binary)
    torch.testing.assert_close(expected_loss(losses.one_over_k_softmax_loss, z), -(z_prime * z.softmax(0).log()).sum())


def test_ova_recovers_the_marginals_and_a_full_softmax_recovers_z_prime():
    torch.testing.assert_close(torch.sigmoid(minimiser(losses.ova_loss)), JOINT @ LABELS.double())
    z_prime = losses.pick_all_labels_marginals(LABELS, JOINT)
    torch.testing.assert_close(minimiser(losses.one_over_k_softmax_loss).softmax(0), z_prime)


def test_the_gap_the_partial_softmax_does_not_recover_z_prime():
    z_prime = losses.pick_all_labels_marginals(LABELS, JOINT)
    found = minimiser(losses.pal_n_loss).softmax(0)
    assert (found - z_prime).abs().max() > 0.01
    # nor any normalised marginals: with all of y in the denominator it is another estimand altogether
    marginals = JOINT @ LABELS.double()
    assert (found - marginals / marginals.sum()).abs().max() > 0.01


def test_t_squared_keeps_the_gradient_as_the_temperature_grows():
    g = torch.Generator().manual_seed(0)
    t, s = torch.randn(2, 4, 5, generator=g, dtype=torch.float64)
    difference = s - t
    limits = {"bernoulli": difference / 4 / 5 / 4, "softmax": (difference - difference.mean(1, keepdim=True)) / 5 / 4}
    for name, limit in limits.items():
        z = s.clone().requires_grad_()
        KL[name](t, z, temperature=1e4).backward()
        torch.testing.assert_close(z.grad, limit, rtol=1e-3, atol=1e-6)


@st.composite
def batches(draw):
    """Two sets of float64 logits, targets and a mask; sizes, spread and density vary."""
    images, classes = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    a, b = draw(st.sampled_from([0.1, 3.0, 50.0])) * torch.randn(2, images, classes, generator=g, dtype=torch.float64)
    targets = torch.rand(images, classes, generator=g) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    return a, b, targets, torch.rand(images, classes, generator=g) < draw(st.sampled_from([0.0, 0.3, 1.0]))


def every_loss(a, b, targets, ignore, **options):
    """name → loss of each kind on one batch; the divergences take b for the teacher."""
    results = {name: loss(a, targets, ignore=ignore, **options) for name, loss in HARD.items()}
    return results | {name: loss(b, a, ignore=ignore, **options) for name, loss in KL.items()}


few = settings(max_examples=25, deadline=None, derandomize=True)


@few
@given(batches())
def test_no_loss_is_negative_and_equal_outputs_have_no_divergence(example):
    a, _, _, ignore = example
    for value in every_loss(*example, reduction="none").values():
        assert value.isfinite().all() and (value >= -1e-12).all()
    for loss in KL.values():
        assert loss(a, a, ignore=ignore) == 0


@few
@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_the_classes_does_not_matter(example, random):
    order = random.sample(range(example[0].shape[1]), example[0].shape[1])
    torch.testing.assert_close(every_loss(*(x[:, order] for x in example)), every_loss(*example))
    permuted, plain = (losses.partial_softmax(x[0], x[2], x[3]) for x in ([x[:, order] for x in example], example))
    torch.testing.assert_close(permuted, plain[:, order])


@few
@given(batches())
def test_the_loss_of_a_batch_is_the_mean_over_its_images(example):
    singles = [every_loss(*(x[i : i + 1] for x in example)) for i in range(len(example[0]))]
    for name, value in every_loss(*example).items():
        torch.testing.assert_close(value, torch.stack([single[name] for single in singles]).mean())


@few
@given(batches(), st.booleans())
def test_one_more_class_that_is_ignored_changes_nothing(example, label):
    a, b, targets, ignore = example

    def widen(x, value):
        return torch.cat([x, torch.full_like(x[:, :1], value)], dim=1)

    wider = widen(a, 7.0), widen(b, -3.0), widen(targets, label), widen(ignore, True)
    torch.testing.assert_close(every_loss(*wider), every_loss(*example))


@few
@given(batches(), st.sampled_from([-5.0, 2.0]))
def test_a_common_shift_of_the_logits_leaves_the_softmax_losses_alone(example, shift):
    a, b, targets, ignore = example
    before, after = every_loss(*example), every_loss(a + shift, b, targets, ignore)
    for name in ("pal_n", "one_over_k", "softmax"):
        torch.testing.assert_close(after[name], before[name], rtol=1e-6, atol=1e-9)


def test_a_common_shift_of_the_logits_moves_ova():
    z, y = torch.zeros(1, 3), torch.tensor([[1, 0, 0]])
    assert losses.ova_loss(z + 1, y) > losses.ova_loss(z, y) + 0.1


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float16, torch.float64])
def test_targets_may_have_any_type(dtype):
    logits, targets = torch.randn(7, 3), LABELS
    for loss in HARD.values():
        assert torch.equal(loss(logits, targets.to(dtype)), loss(logits, targets))


Z, Y = torch.zeros(1, 2), torch.zeros(1, 2)
BAD = [
    (lambda: losses.ova_loss(Z, torch.zeros(1, 4)), ValueError, r"targets have shape \(1, 4\) but .*\(1, 2\)"),
    (lambda: losses.ova_loss(torch.zeros(2, 2), torch.tensor([[0, 1], [0, 2]])), ValueError, r"hold 2 at \[1, 1\]"),
    (lambda: losses.pal_n_loss(Z, torch.tensor([[0.5, 1]])), ValueError, r"hold 0.5 at \[0, 0\]"),
    (lambda: losses.pal_n_loss(Z, torch.tensor([[1, float("nan")]])), ValueError, r"hold nan at \[0, 1\]"),
    (lambda: losses.pal_n_loss(torch.zeros(3), torch.zeros(3)), ValueError, r"found shape \(3,\)"),
    (lambda: losses.ova_loss(torch.zeros(0, 3), torch.zeros(0, 3)), ValueError, r"found shape \(0, 3\)"),
    (lambda: losses.ova_loss(Z.long(), Y), TypeError, "logits: found torch.int64"),
    (lambda: losses.ova_loss([[0.0]], Y), TypeError, "logits: found list"),
    (lambda: losses.ova_loss(Z, [[0, 1]]), TypeError, "targets: found list"),
    (lambda: losses.ova_loss(Z, Y, Y), TypeError, "ignore: found torch.float32"),
    (lambda: losses.ova_loss(Z, Y, torch.zeros(1, 3).bool()), ValueError, r"ignore have shape \(1, 3\)"),
    (lambda: losses.ova_loss(Z, Y, scale="code"), ValueError, "scale is code: expected 'paper' or 'released'"),
    (lambda: losses.ova_loss(Z, Y, reduction="sum"), ValueError, "reduction is sum: expected 'mean' or 'none'"),
    (lambda: losses.pal_n_loss(Z, Y, temperature=0), ValueError, "temperature is 0: expected above 0"),
    (lambda: losses.bernoulli_kl(Z, Z, temperature=-1.0), ValueError, "temperature is -1.0"),
    (lambda: losses.softmax_kl(Z, torch.zeros(1, 3)), ValueError, r"teacher_logits have shape \(1, 2\)"),
    (lambda: losses.attention_loss(torch.zeros(2, 3, 3), torch.zeros(1, 3, 3)), ValueError, "the same images"),
    (lambda: losses.attention_loss(Z, Z), ValueError, r"teacher_map: found shape \(1, 2\)"),
    (lambda: losses.asymmetric_loss(Z, Y, margin=1.0), ValueError, "margin is 1.0"),
    (lambda: losses.asymmetric_loss(Z, Y, gamma_neg=-1), ValueError, "gamma_neg is -1"),
    (lambda: losses.pick_all_labels_marginals(LABELS, JOINT / 2), ValueError, "probabilities sum to 0.5"),
    (lambda: losses.pick_all_labels_marginals(LABELS[:3], JOINT), ValueError, r"labels have shape \(3, 3\)"),
    (lambda: losses.pick_all_labels_marginals(2 * LABELS, JOINT), ValueError, r"labels hold 2 at \[0, 2\]"),
]


@pytest.mark.parametrize("call, error, message", BAD, ids=[message for *_, message in BAD])
def test_bad_input_is_named_with_the_value_found(call, error, message):
    with pytest.raises(error, match=message):
        call()
