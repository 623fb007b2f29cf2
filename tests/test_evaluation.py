"""Every number of a split against the functions that it comes from, and what a network without a level lacks."""

import math

import pytest
import torch

from udlib import calibration
from udlib.metrics import average_precision, mean_average_precision, precision_recall_f1
from udlib.posthoc import fit_platt
from udlib.training.evaluation import Split, measure

NAMES = tuple("abcd")
F1 = ("CP", "CR", "CF1", "OP", "OR", "OF1")


def drawn(posterior=True, difficult=True):
    draw = torch.Generator().manual_seed(0)
    targets = (torch.rand(40, 4, generator=draw) < 0.4).to(torch.uint8)
    hard = (torch.rand(40, 4, generator=draw) < 0.3) & targets.bool() & torch.tensor(difficult)
    known = torch.rand(40, 4, generator=draw) if posterior else None
    return 2 * torch.randn(40, 4, generator=draw), Split(NAMES, targets, hard, known)


def test_each_number_is_that_of_its_function():
    logits, split = drawn()
    p, y, hard = torch.sigmoid(logits.double()), split.targets, split.difficult
    expected = {
        "mAP": mean_average_precision(p, y, hard),
        "mAP_positive": mean_average_precision(p, y),
        "mAP_negative": mean_average_precision(p, y.masked_fill(hard, 0)),
        "mAP_difficult": mean_average_precision(p[hard.any(1)], y[hard.any(1)]),
        "ECE": calibration.expected_calibration_error(p, y),
        "ECE_pooled": calibration.expected_calibration_error(p, y, average="pooled"),
        "ECE_confident": calibration.confident_calibration_error(p, y, average="pooled"),
        "overconfidence": (p[p >= 0.5].mean() - y[p >= 0.5].double().mean()).item(),
        "NLL": calibration.negative_log_likelihood(p, y),
        "Brier": calibration.brier_score(p, y),
        "true_CE": calibration.true_calibration_error(p, split.posterior),
        "true_CE_pooled": calibration.true_calibration_error(p, split.posterior, average="pooled"),
        "NLL_floor": calibration.expected_nll_floor(split.posterior),
    }
    policies = {"": (y, hard), "_positive": (y, None), "_negative": (y.masked_fill(hard, 0), None)}
    for suffix, (targets, ignore) in policies.items():
        for top, k in (("", None), ("_top3", 3)):
            scores = precision_recall_f1(p, targets, top_k=k, ignore=ignore)
            expected |= {f"{name}{top}{suffix}": scores[name] for name in F1}
    found = measure(logits, split)
    assert found.keys() == expected.keys() and all(type(value) is float for value in found.values())
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name


def test_logits_without_a_level_are_ranked_by_softmax_alone():
    logits, split = drawn()
    found = measure(logits, split, "softmax")
    assert set(found) == {"mAP", "mAP_positive", "mAP_negative", "mAP_difficult"}
    p = logits.double().softmax(1)
    assert found["mAP"] == average_precision(p, split.targets, split.difficult).mean().item()


def test_a_calibrator_reads_the_logits():
    logits, split = drawn()
    calibrator = fit_platt(logits, split.targets)
    p = calibrator(logits.double())
    assert measure(logits, split, calibrator=calibrator)["NLL"] == calibration.negative_log_likelihood(p, split.targets)


def test_what_is_not_known_is_left_out():
    found = measure(*drawn(posterior=False, difficult=False))
    assert not {"true_CE", "true_CE_pooled", "NLL_floor", "mAP_difficult"} & set(found) and "ECE" in found


def test_without_a_confident_label_the_confident_errors_are_undefined():
    logits, split = drawn()
    shy = measure(-logits.abs() - 1, split)
    assert math.isnan(shy["ECE_confident"]) and math.isnan(shy["overconfidence"]) and shy["OR"] == 0
    edge = measure(logits * 0, split)  # p = 0.5 everywhere is confident
    assert edge["overconfidence"] == pytest.approx(0.5 - split.targets.double().mean().item())


def test_two_classes_have_a_top_two():
    logits, split = drawn(posterior=False)
    two = Split(NAMES[:2], split.targets[:, :2], split.difficult[:, :2], None)
    found = measure(logits[:, :2], two)
    assert found["OR_top3"] == found["OR"]


def test_the_top_three_are_of_the_classes_however_few_the_images():
    logits, split = drawn(posterior=False, difficult=False)
    few = Split(NAMES, torch.ones(2, 4, dtype=torch.uint8), split.difficult[:2], None)
    assert measure(logits[:2].abs() + 1, few)["OR_top3"] == 0.75
