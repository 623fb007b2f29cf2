"""Facts about the losses, against literal loops over images and labels and against PyTorch's own losses."""

import math
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import gradcheck
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.nn import functional as F

from udlib import losses

N, C = 6, 5
HARD = {
    "ova": losses.ova_loss,
    "ova, released": lambda *a, **k: losses.ova_loss(*a, **k, scale="released"),
    "pal_n": losses.pal_n_loss,
    "pal_n at T = 3": lambda *a, **k: losses.pal_n_loss(*a, **k, temperature=3.0),
    "one_over_k": losses.one_over_k_softmax_loss,
    "label_smoothing": losses.label_smoothing_loss,
    "asymmetric": losses.asymmetric_loss,
    "asymmetric, γ 0 and 2": lambda *a, **k: losses.asymmetric_loss(*a, **k, gamma_neg=0, gamma_pos=2, margin=0.2),
}
KL = {"bernoulli": losses.bernoulli_kl, "softmax": losses.softmax_kl}


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def bernoulli_divergence(p, q):
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


# One image at a time: z and y list the logits and labels that are kept.
def literal_ova(z, y):
    return -sum(math.log(sigmoid(z_i)) if y_i else math.log(1 - sigmoid(z_i)) for z_i, y_i in zip(z, y))


def literal_partial_softmax(z, y, temperature=1.0):
    negatives = sum(math.exp(z_j / temperature) for z_j, y_j in zip(z, y) if not y_j)
    return [
        math.exp(z_i / temperature) / (math.exp(z_i / temperature) + negatives) if y_i else 0.0
        for z_i, y_i in zip(z, y)
    ]


def literal_pal_n(z, y, temperature=1.0):
    f = literal_partial_softmax(z, y, temperature)
    return -sum(math.log(f_i) for f_i, y_i in zip(f, y) if y_i) / max(sum(y), 1)


def literal_one_over_k(z, y):
    everything = sum(math.exp(z_j) for z_j in z)
    return -sum(math.log(math.exp(z_i) / everything) / sum(y) for z_i, y_i in zip(z, y) if y_i)


def literal_label_smoothing(z, y):
    return sum(bernoulli_divergence(sigmoid(9 if y_i else -9), sigmoid(z_i)) for z_i, y_i in zip(z, y)) / max(len(z), 1)


def literal_asymmetric(z, y, gamma_neg=4, gamma_pos=0, margin=0.05):
    total = 0.0
    for z_i, y_i in zip(z, y):
        p, p_m = sigmoid(z_i), max(sigmoid(z_i) - margin, 0)
        total -= (1 - p) ** gamma_pos * math.log(p) if y_i else p_m**gamma_neg * math.log(1 - p_m)
    return total


LITERAL = {
    "ova": literal_ova,
    "ova, released": lambda z, y: literal_ova(z, y) / max(len(z), 1),
    "pal_n": literal_pal_n,
    "pal_n at T = 3": lambda z, y: literal_pal_n(z, y, 3.0),
    "one_over_k": literal_one_over_k,
    "label_smoothing": literal_label_smoothing,
    "asymmetric": literal_asymmetric,
    "asymmetric, γ 0 and 2": lambda z, y: literal_asymmetric(z, y, 0, 2, 0.2),
}


def batch(seed=0, images=N, classes=C, dtype=torch.float64, spread=2.0):
    """Logits and targets; the first image has no positive, the second no negative."""
    g = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(images, classes, generator=g, dtype=torch.float64)
    targets = torch.rand(images, classes, generator=g) < 0.4
    targets[0], targets[1 % images] = False, True
    return logits.to(dtype), targets.to(torch.int64)


def mask(seed=1, images=N, classes=C):
    """A third of the labels left out, and the whole of the last image."""
    left_out = torch.rand(images, classes, generator=torch.Generator().manual_seed(seed)) < 0.3
    left_out[-1] = True
    return left_out


def kept(row, left_out):
    return [value for value, drop in zip(row.tolist(), left_out.tolist()) if not drop]


def prediction(seed, images=N, classes=C):
    return SimpleNamespace(
        logits=batch(seed, images, classes)[0].requires_grad_(),
        calibration_logits=batch(seed + 100, images, classes)[0].requires_grad_(),
    )


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("ignoring", [False, True])
def test_hard_label_losses_equal_their_formulas_written_as_loops(name, ignoring):
    logits, targets = batch()
    ignore = mask() if ignoring else torch.zeros(N, C, dtype=torch.bool)
    expected = [LITERAL[name](kept(z, m), kept(y, m)) for z, y, m in zip(logits, targets, ignore)]
    given_mask = ignore if ignoring else None
    found = HARD[name](logits, targets, ignore=given_mask, reduction="none")
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(HARD[name](logits, targets, ignore=given_mask), found.mean())


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_partial_softmax_equals_its_loop_and_is_zero_at_the_negatives(temperature):
    logits, targets = batch()
    expected = [literal_partial_softmax(z, y, temperature) for z, y in zip(logits.tolist(), targets.tolist())]
    found = losses.partial_softmax(logits, targets, temperature=temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_partial_softmax_of_one_positive_is_a_softmax_over_all_classes():
    logits, _ = batch()
    targets = F.one_hot(torch.arange(N) % C, C)
    torch.testing.assert_close(losses.partial_softmax(logits, targets), logits.softmax(1) * targets)
    torch.testing.assert_close(losses.pal_n_loss(logits, targets), F.cross_entropy(logits, targets.argmax(1)))
    torch.testing.assert_close(losses.one_over_k_softmax_loss(logits, targets), losses.pal_n_loss(logits, targets))


def test_ova_is_pytorchs_binary_cross_entropy_summed_over_classes():
    logits, targets = batch()
    reference = F.binary_cross_entropy_with_logits(logits, targets.double())
    torch.testing.assert_close(losses.ova_loss(logits, targets), C * reference)
    torch.testing.assert_close(losses.ova_loss(logits, targets, scale="released"), reference)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergences_equal_those_of_torch_distributions(temperature):
    t, s = batch(1)[0], batch(2)[0]
    bernoulli = kl_divergence(Bernoulli(logits=t / temperature), Bernoulli(logits=s / temperature)).mean(1)
    softmax = kl_divergence(Categorical(logits=t / temperature), Categorical(logits=s / temperature))
    for found, expected in [(losses.bernoulli_kl, bernoulli), (losses.softmax_kl, softmax)]:
        torch.testing.assert_close(found(t, s, temperature, reduction="none"), temperature**2 * expected)
        torch.testing.assert_close(found(t, s, temperature), temperature**2 * expected.mean())


def test_divergences_with_ignored_labels_equal_loops_over_the_kept_ones():
    t, s, ignore = batch(1)[0], batch(2)[0], mask()
    bernoulli, softmax = [], []
    for row_t, row_s, m in zip(t, s, ignore):
        a, b = kept(row_t, m), kept(row_s, m)
        sum_a, sum_b = sum(map(math.exp, a)), sum(map(math.exp, b))
        bernoulli.append(sum(bernoulli_divergence(sigmoid(x), sigmoid(y)) for x, y in zip(a, b)) / max(len(a), 1))
        softmax.append(sum(math.exp(x) / sum_a * (x - y + math.log(sum_b / sum_a)) for x, y in zip(a, b)))
    for loss, expected in [(losses.bernoulli_kl, bernoulli), (losses.softmax_kl, softmax)]:
        found = loss(t, s, ignore=ignore, reduction="none")
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("name", [n for n in HARD if "asymmetric" not in n])
@pytest.mark.parametrize("ignore", [None, mask()])
def test_gradients_of_hard_label_losses_match_finite_differences(name, ignore):
    logits, targets = batch()
    assert gradcheck(lambda z: HARD[name](z, targets, ignore=ignore), logits.requires_grad_())


@pytest.mark.parametrize("name", KL)
@pytest.mark.parametrize("ignore", [None, mask()])
def test_gradients_of_divergences_match_finite_differences_in_both_arguments(name, ignore):
    t, s = batch(1)[0].requires_grad_(), batch(2)[0].requires_grad_()
    assert gradcheck(lambda a, b: KL[name](a, b, 2.0, ignore=ignore), (t, s))


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_asymmetric_gradient_holds_the_focusing_weight_constant(margin):
    logits, targets = batch()
    logits.requires_grad_()
    losses.asymmetric_loss(logits, targets, gamma_neg=4, gamma_pos=1, margin=margin).backward()
    p = torch.sigmoid(logits.detach())
    p_m = (p - margin).clamp(min=0)
    expected = torch.where(targets == 1, -(1 - p) * (1 - p), p_m**4 * (p_m > 0) * p * (1 - p) / (1 - p_m)) / N
    torch.testing.assert_close(logits.grad, expected)


def test_asymmetric_loss_without_focus_and_margin_is_ova():
    logits, targets = batch(spread=1e3)
    found = losses.asymmetric_loss(logits, targets, gamma_neg=0, gamma_pos=0, margin=0)
    torch.testing.assert_close(found, losses.ova_loss(logits, targets))


@pytest.mark.parametrize("released", [False, True])
def test_attention_loss_equals_its_loop_and_finite_differences(released):
    g = torch.Generator().manual_seed(0)
    t, s = torch.randn(2, 3, 4, 5, generator=g, dtype=torch.float64)
    scale = "released" if released else "paper"
    squares = [sum((a - b) ** 2 for a, b in zip(x.flatten().tolist(), y.flatten().tolist())) for x, y in zip(t, s)]
    expected = sum(v / 20 if released else math.sqrt(v) for v in squares) / 3
    assert losses.attention_loss(t, s, scale=scale).item() == pytest.approx(expected)
    assert gradcheck(lambda m: losses.attention_loss(t, m, normalize=True, scale=scale), s.requires_grad_())


def test_attention_loss_has_zero_and_finite_gradient_where_the_maps_agree():
    for normalize in (False, True):
        for student in (torch.full((2, 3, 3), 0.1), torch.zeros(2, 3, 3), torch.arange(18.0).view(2, 3, 3)):
            student.requires_grad_()
            loss = losses.attention_loss(student.detach().clone(), student, normalize=normalize)
            loss.backward()
            assert loss == 0 and torch.equal(student.grad, torch.zeros_like(student))


def test_normalize_turns_a_flat_map_into_zeros_and_not_into_amplified_rounding():
    flat, other = torch.full((2, 7, 7), 0.1), torch.full((2, 7, 7), 0.3).requires_grad_()
    loss = losses.attention_loss(flat, other, normalize=True)
    loss.backward()
    assert loss == 0 and torch.equal(other.grad, torch.zeros_like(other))
    ramp = torch.arange(49.0).view(1, 7, 7).expand(2, 7, 7)  # standardised, its norm is √(h·w)
    assert losses.attention_loss(flat, ramp, normalize=True).item() == pytest.approx(7)


def test_attention_loss_resizes_the_teachers_map_and_normalize_removes_scale_and_offset():
    teacher = torch.arange(32.0, dtype=torch.float64).view(2, 4, 4)
    halved = teacher.view(2, 2, 2, 2, 2).mean((2, 4))  # halving bilinearly averages blocks of four
    assert losses.attention_loss(teacher, halved).item() == pytest.approx(0)
    assert losses.attention_loss(teacher, 5 * halved + 7, normalize=True).item() == pytest.approx(0, abs=1e-12)
    # two standardised maps that are opposite differ by 2 everywhere in root mean square: 2 √(h·w)
    assert losses.attention_loss(teacher, -halved, normalize=True).item() == pytest.approx(4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_work_is_done_in_float32_or_better(dtype):
    logits, targets = batch(dtype=dtype)
    other, maps = logits.flip(0), logits[:, None]
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    results = [f(logits, targets) for f in HARD.values()] + [f(other, logits) for f in KL.values()]
    for result in [*results, losses.partial_softmax(logits, targets), losses.attention_loss(maps.flip(0), maps)]:
        assert result.dtype == expected
    for f in HARD.values():
        torch.testing.assert_close(f(logits, targets).double(), f(logits.double(), targets), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", HARD)
def test_extreme_logits_give_finite_losses_and_gradients(name):
    for dtype, size in [(torch.float32, 1e4), (torch.float16, 6e4), (torch.bfloat16, 1e4)]:
        logits = torch.tensor([[1, -1, 1], [-1, 1, -1], [1, 1, 1], [-1, -1, -1]], dtype=dtype) * size
        for y in product([0, 1], repeat=3):
            z = logits.clone().requires_grad_()
            with torch.autograd.set_detect_anomaly(True):
                loss = HARD[name](z, torch.tensor([y] * 4))
                loss.backward()
            assert loss.isfinite() and loss >= 0 and z.grad.isfinite().all()


def test_extreme_logits_give_finite_divergences():
    t, s = 1e4 * torch.tensor([[1.0, -1, 1]]), (1e4 * torch.tensor([[-1.0, 1, 1]])).requires_grad_()
    assert losses.bernoulli_kl(t, s).item() == pytest.approx(2e4 / 3)
    for f in KL.values():
        f(t, s).backward()
    assert losses.softmax_kl(t, s).item() == pytest.approx(1e4)
    assert s.grad.isfinite().all()


@pytest.mark.parametrize("name", ["pal_n", "one_over_k"])
def test_an_image_without_positives_adds_zero_and_no_gradient(name):
    logits = (1e4 * torch.randn(2, C, generator=torch.Generator().manual_seed(0))).requires_grad_()
    loss = HARD[name](logits, torch.zeros(2, C))
    loss.backward()
    assert loss == 0 and torch.equal(logits.grad, torch.zeros(2, C))


def test_an_image_without_negatives_has_f_equal_to_one_and_no_pal_n():
    for classes in (1, C):
        logits = torch.randn(2, classes).requires_grad_()
        loss = losses.pal_n_loss(logits, torch.ones(2, classes))
        loss.backward()
        assert loss == 0 and torch.equal(logits.grad, torch.zeros(2, classes))
        assert torch.equal(losses.partial_softmax(logits, torch.ones(2, classes)), torch.ones(2, classes))


def test_ignored_labels_get_no_gradient_and_may_hold_anything():
    logits, targets = batch()
    ignore = mask()
    divergences = [lambda z, y, ignore, kl=kl: kl(logits.flip(0), z, ignore=ignore) for kl in KL.values()]
    for f in [*HARD.values(), *divergences]:
        z = logits.masked_fill(ignore, math.nan).requires_grad_()
        loss = f(z, targets, ignore=ignore)
        loss.backward()
        assert torch.equal(loss, f(logits, targets, ignore=ignore))
        assert (z.grad[ignore] == 0).all() and z.grad.isfinite().all()


def test_dual_branch_loss_weighs_pal_n_and_halves_at_the_released_scale():
    p, (_, targets) = prediction(3), batch()
    paper = losses.dual_branch_loss(p, targets, lam=0.7, ignore=mask())
    released = losses.dual_branch_loss(p, targets, lam=0.7, ignore=mask(), scale="released")
    assert torch.equal(paper["total"], paper["ova"] + 0.7 * paper["pal_n"])
    assert torch.equal(released["total"], (released["ova"] + 0.7 * released["pal_n"]) / 2)
    assert torch.equal(released["pal_n"], paper["pal_n"])
    torch.testing.assert_close(paper["pal_n"], losses.pal_n_loss(p.calibration_logits, targets, mask()))
    # without ignored labels the two totals are one loss: the released λ stands for C times the paper's
    a = losses.dual_branch_loss(p, targets, lam=0.1 * C)["total"]
    b = losses.dual_branch_loss(p, targets, lam=0.1, scale="released")["total"]
    torch.testing.assert_close(a, 2 * C * b)


def test_dual_branch_loss_needs_the_calibration_branch_only_where_it_counts():
    p, (_, targets) = prediction(3), batch()
    alone = SimpleNamespace(logits=p.logits, calibration_logits=None)
    terms = losses.dual_branch_loss(alone, targets, lam=0)
    assert terms["total"] == terms["ova"] and terms["pal_n"] == 0
    assert losses.dual_branch_loss(p, targets, lam=0)["pal_n"] > 0  # reported where it can be, with no say in the total
    with pytest.raises(ValueError, match="lam is 0.1 but calibration_logits is None"):
        losses.dual_branch_loss(alone, targets)
    with pytest.raises(ValueError, match="lam is -0.1: expected at least 0"):
        losses.dual_branch_loss(p, targets, lam=-0.1)


def test_uncertainty_distillation_adds_its_three_terms_at_both_scales():
    teacher, student = prediction(1), prediction(2)
    maps = torch.randn(2, N, 3, 3, dtype=torch.float64).requires_grad_()
    args = dict(alpha=0.3, beta=0.2, teacher_map=maps[0], student_map=maps[1], temperature=3.0)
    kl_b = losses.bernoulli_kl(teacher.logits, student.logits, 3.0)
    kl_s = losses.softmax_kl(teacher.calibration_logits, student.calibration_logits, 3.0)
    norm, mse = (maps[0] - maps[1]).flatten(1).norm(dim=1).mean(), F.mse_loss(maps[0], maps[1])
    paper = losses.uncertainty_distillation_loss(teacher, student, **args)
    released = losses.uncertainty_distillation_loss(teacher, student, **args, scale="released")
    torch.testing.assert_close(
        paper, dict(total=kl_b + 0.3 * kl_s + 0.2 * norm, classification=kl_b, calibration=kl_s, attention=norm)
    )
    torch.testing.assert_close(
        released,
        dict(total=(kl_b / 2 + 0.3 * kl_s) / 2 + 0.2 * mse, classification=kl_b / 2, calibration=kl_s, attention=mse),
    )
    alike = losses.uncertainty_distillation_loss(teacher, student, **args, normalize=True)["attention"]
    torch.testing.assert_close(alike, losses.attention_loss(maps[0], maps[1], normalize=True))
    paper["total"].backward()
    assert teacher.logits.grad is None and teacher.calibration_logits.grad is None
    assert (maps.grad[0] == 0).all() and (maps.grad[1] != 0).any() and (student.calibration_logits.grad != 0).any()


def test_uncertainty_distillation_names_what_is_missing():
    teacher, student = prediction(1), prediction(2)
    with pytest.raises(ValueError, match="beta is 0.5 but teacher_map and student_map is None"):
        losses.uncertainty_distillation_loss(teacher, student)
    assert losses.uncertainty_distillation_loss(teacher, student, beta=0)["attention"] == 0
    student.calibration_logits = None
    with pytest.raises(ValueError, match="alpha is 0.5 but student_calibration_logits is None"):
        losses.uncertainty_distillation_loss(teacher, student, beta=0)
