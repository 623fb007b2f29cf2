"""Metrics against scikit-learn, torchmetrics and literal loops; what ties, masks and absent classes do."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torchmetrics.functional.classification import multilabel_average_precision

from udlib.metrics import (
    AP_VARIANTS,
    average_precision,
    difficult_subset,
    mean_average_precision,
    precision_recall_f1,
)

few = settings(max_examples=30, deadline=None)


def random_predictions(n=200, classes=6, seed=0, frequency=0.2, ties=False):
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(n, classes, generator=generator) < frequency).long()
    scores = torch.randn(n, classes, generator=generator) + 1.5 * targets
    return (scores * 2).round() if ties else scores, targets


def literal_points(scores, targets):
    """(recall, precision) after each distinct threshold, from the highest down, by counting."""
    points = []
    for threshold in sorted(set(scores), reverse=True):
        found = [t for s, t in zip(scores, targets) if s >= threshold]
        points.append((sum(found), sum(targets), sum(found) / len(found)))
    return points


def literal_average_precision(scores, targets, variant):
    points = literal_points(scores, targets)
    if variant == "voc07-11point":
        best = [max(p for hits, n, p in points if hits * 10 >= level * n) for level in range(11)]
        return sum(best) / 11
    area, last = 0.0, 0
    for i, (hits, n, precision) in enumerate(points):
        if variant == "voc10-area":
            precision = max(p for _, _, p in points[i:])
        area, last = area + (hits - last) / n * precision, hits
    return area


@st.composite
def predictions(draw):
    n, classes = draw(st.integers(1, 24)), draw(st.integers(1, 4))
    cells = n * classes
    values = st.one_of(st.integers(-3, 3).map(float), st.floats(-50, 50, width=32))  # integers make ties
    scores = draw(st.lists(values, min_size=cells, max_size=cells))
    targets = draw(st.lists(st.booleans(), min_size=cells, max_size=cells))
    ignore = draw(st.lists(st.booleans(), min_size=cells, max_size=cells))
    return tuple(torch.tensor(x).reshape(n, classes) for x in (scores, targets, ignore))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_that_of_scikit_learn_with_ties_as_one_threshold(dtype, ties):
    scores, targets = random_predictions(1000, ties=ties)
    scores = scores.to(dtype)
    expected = [average_precision_score(targets[:, c], scores[:, c].double()) for c in range(6)]
    torch.testing.assert_close(average_precision(scores, targets), torch.tensor(expected, dtype=torch.float64))


def test_average_precision_agrees_with_scikit_learn_when_scores_crowd_into_few_buckets():
    generator = np.random.default_rng(0)
    targets = generator.random((5000, 3)) < 0.3
    scores = np.stack(
        [
            generator.random(5000) ** 40,
            np.exp(generator.standard_normal(5000) * 8),
            np.where(targets[:, 2], 1e30, generator.random(5000)),
        ],
        axis=1,
    )
    scores[0] = -1e30
    expected = [average_precision_score(targets[:, c], scores[:, c]) for c in range(3)]
    np.testing.assert_allclose(average_precision(scores, targets), expected, rtol=1e-12)


def test_average_precision_is_that_of_torchmetrics_where_every_class_has_positives():
    scores, targets = random_predictions()
    expected = multilabel_average_precision(scores.sigmoid(), targets, num_labels=6, average=None)
    torch.testing.assert_close(average_precision(scores.sigmoid(), targets).float(), expected)


@pytest.mark.parametrize("variant", AP_VARIANTS)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_each_variant_equals_its_literal_loop(variant, seed, ties):
    scores, targets = random_predictions(60, 4, seed, frequency=0.3, ties=ties)
    expected = [literal_average_precision(scores[:, c].tolist(), targets[:, c].tolist(), variant) for c in range(4)]
    assert average_precision(scores, targets, variant=variant).tolist() == pytest.approx(expected, abs=1e-12)


def test_the_variants_of_a_small_example_are_those_worked_out_by_hand():
    scores, targets = [[0.9], [0.8], [0.7], [0.6], [0.5]], [[1], [0], [0], [1], [1]]
    found = [average_precision(scores, targets, variant=v).item() for v in AP_VARIANTS]
    # precision 1, 1/2, 3/5 at recall 1/3, 2/3, 1: the envelope lifts 1/2 to 3/5; recall 0 … 0.3 and 0.4 … 1
    assert found == pytest.approx([(1 + 1 / 2 + 3 / 5) / 3, (4 * 1 + 7 * 3 / 5) / 11, (1 + 3 / 5 + 3 / 5) / 3])


def test_a_recall_of_exactly_three_tenths_counts_for_that_level():
    targets = [[1]] * 3 + [[0]] * 97 + [[1]] * 7
    scores = [[-float(i)] for i in range(107)]
    assert average_precision(scores, targets, variant="voc07-11point").item() == pytest.approx((4 + 7 * 10 / 107) / 11)


def test_a_constant_predictor_has_the_class_frequency_as_its_average_precision():
    assert average_precision([[0.5]] * 8, [[1], [1]] + [[0]] * 6).item() == 0.25


@pytest.mark.parametrize("variant", AP_VARIANTS)
def test_a_perfect_ranking_scores_one_and_one_positive_at_the_end_scores_one_over_n(variant):
    scores = torch.arange(10.0)[:, None]
    assert average_precision(scores, scores >= 7, variant=variant).item() == 1
    assert average_precision(-scores, scores == 9, variant=variant).item() == pytest.approx(0.1)


def test_infinite_scores_rank_first_and_last():
    scores = torch.tensor([[math.inf], [0.3], [-math.inf], [0.2], [1.0]])
    targets = [[1], [0], [1], [0], [1]]
    assert average_precision(scores, targets).item() == pytest.approx((1 + 1 + 3 / 5) / 3)


def test_a_class_without_positives_is_nan_and_left_out_of_the_mean():
    scores, targets = random_predictions()
    targets[:, 2] = 0
    per_class = average_precision(scores, targets)
    assert per_class.isnan().tolist() == [False, False, True, False, False, False]
    assert per_class.dtype == torch.float64
    assert mean_average_precision(scores, targets) == pytest.approx(per_class[[0, 1, 3, 4, 5]].mean().item())


def test_a_class_whose_positives_are_all_ignored_is_absent_too():
    scores, targets = random_predictions()
    assert average_precision(scores, targets, ignore=targets.bool()).isnan().all()


def test_map_without_any_positive_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="none of the 3 classes has a positive"):
        mean_average_precision(torch.zeros(4, 3), torch.zeros(4, 3))


@pytest.mark.parametrize("variant", AP_VARIANTS)
def test_ignoring_entries_equals_leaving_them_out_of_their_class(variant):
    scores, targets = random_predictions()
    ignore = torch.rand(scores.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    left = [(scores[~ignore[:, c], c, None], targets[~ignore[:, c], c, None]) for c in range(6)]
    expected = [average_precision(*column, variant=variant).item() for column in left]
    assert average_precision(scores, targets, ignore, variant).tolist() == expected


@few
@given(predictions(), st.sampled_from(AP_VARIANTS), st.randoms(use_true_random=False))
def test_ignored_entries_never_matter_whatever_their_values(case, variant, random):
    scores, targets, ignore = case
    noise = torch.tensor([random.choice([math.nan, math.inf, -7.0]) for _ in scores.flatten()]).reshape(scores.shape)
    scrambled = torch.where(ignore, noise, scores), torch.where(ignore, 255, targets.long())
    expected = average_precision(scores, targets, ignore, variant)
    found = average_precision(*scrambled, ignore, variant)
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=0, atol=0)


@few
@given(predictions(), st.sampled_from(AP_VARIANTS), st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter_even_with_ties(case, variant, random):
    order = random.sample(range(len(case[0])), len(case[0]))
    torch.testing.assert_close(
        average_precision(*(x[order] for x in case), variant), average_precision(*case, variant), equal_nan=True
    )


@few
@given(predictions(), st.sampled_from(AP_VARIANTS))
def test_a_strictly_increasing_transform_leaves_average_precision_alone(case, variant):
    scores, targets, ignore = case
    ranks = torch.unique(scores, return_inverse=True)[1].double()
    expected = average_precision(scores, targets, ignore, variant)
    for transformed in (ranks, ranks * 3 - 40, torch.exp(ranks / 4)):
        torch.testing.assert_close(average_precision(transformed, targets, ignore, variant), expected, equal_nan=True)


@few
@given(predictions(), st.sampled_from(AP_VARIANTS))
def test_average_precision_lies_in_the_unit_interval_and_one_class_does_not_see_another(case, variant):
    scores, targets, ignore = case
    per_class = average_precision(scores, targets, ignore, variant)
    assert ((per_class >= 0) & (per_class <= 1) | per_class.isnan()).all()
    alone = [average_precision(*(x[:, [c]] for x in case), variant) for c in range(scores.shape[1])]
    torch.testing.assert_close(torch.cat(alone), per_class, equal_nan=True, rtol=0, atol=0)


@few
@given(predictions())
def test_the_interpolated_area_is_never_below_the_plain_one(case):
    plain, area = (average_precision(*case, variant) for variant in ("non-interpolated", "voc10-area"))
    assert (area[~area.isnan()] >= plain[~plain.isnan()] - 1e-12).all()


def literal_decisions(p, targets, threshold, top_k, ignore):
    """CP … OF1 from their definitions, one image and one class at a time."""
    n, classes = len(p), len(p[0])
    tp, predicted, actual = [0] * classes, [0] * classes, [0] * classes
    for i in range(n):
        valid = [c for c in range(classes) if not ignore[i][c]]
        chosen = [c for c in sorted(valid, key=lambda c: -p[i][c])[:top_k] if p[i][c] >= threshold]
        for c in valid:
            tp[c] += c in chosen and targets[i][c]
            predicted[c] += c in chosen
            actual[c] += targets[i][c]

    def ratio(a, b):
        return a / b if b else 0.0

    cp = sum(map(ratio, tp, predicted)) / classes
    cr = sum(map(ratio, tp, actual)) / classes
    op, or_ = ratio(sum(tp), sum(predicted)), ratio(sum(tp), sum(actual))
    cf1, of1 = ratio(2 * cp * cr, cp + cr), ratio(2 * op * or_, op + or_)
    return {"CP": cp, "CR": cr, "CF1": cf1, "OP": op, "OR": or_, "OF1": of1}


@few
@given(predictions(), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.sampled_from([None, 1, 2, 3, 9]))
def test_precision_recall_and_f1_equal_the_literal_loop(case, threshold, top_k):
    scores, targets, ignore = case
    p = (scores.double() / 100 + 0.5).mul(10).round() / 10  # tenths: many ties, and many at the threshold itself
    expected = literal_decisions(p.tolist(), targets.int().tolist(), threshold, top_k, ignore.tolist())
    assert precision_recall_f1(p, targets, threshold, top_k, ignore) == pytest.approx(expected)


def test_cf1_is_the_harmonic_mean_of_the_mean_precision_and_recall_not_the_mean_of_class_f1s():
    p, targets = [[0.9, 0.9], [0.1, 0.9]], [[1, 1], [1, 0]]
    found = precision_recall_f1(p, targets)
    assert (found["CP"], found["CR"]) == (0.75, 0.75)
    assert found["CF1"] == 0.75 != (2 / 3 + 2 / 3) / 2


def test_nothing_predicted_and_nothing_present_give_zero_not_nan():
    zeros = torch.zeros(3, 2)
    assert set(precision_recall_f1(zeros, torch.ones(3, 2)).values()) == {0.0}
    assert set(precision_recall_f1(zeros, zeros).values()) == {0.0}


def test_a_probability_equal_to_the_threshold_is_predicted_in_single_precision_too():
    assert precision_recall_f1(torch.tensor([[0.3]]), [[1]], threshold=0.3)["OP"] == 1


def test_top_k_takes_only_labels_that_reach_the_threshold():
    p, targets = [[0.9, 0.8, 0.7, 0.6, 0.4]], [[1, 1, 1, 1, 1]]
    assert precision_recall_f1(p, targets, top_k=3)["OR"] == pytest.approx(3 / 5)
    assert precision_recall_f1(p, targets, top_k=5)["OR"] == pytest.approx(4 / 5)


def test_ignored_labels_take_no_place_among_the_top_k():
    p, targets, ignore = [[0.9, 0.8, 0.7]], [[0, 1, 1]], np.array([[True, False, False]])
    assert precision_recall_f1(p, targets, top_k=2, ignore=ignore)["OF1"] == 1


def test_logits_given_as_probabilities_are_refused_with_the_remedy():
    with pytest.raises(
        ValueError,
        match=r"probabilities hold 2\.5 at \[1, 0\]: expected probabilities; if they are logits, apply torch\.sigmoid",
    ):
        precision_recall_f1([[0.5], [2.5]], [[1], [0]])
    with pytest.raises(ValueError, match=r"hold -0\.5 at \[0, 0\]"):
        precision_recall_f1([[-0.5]], [[1]])


@pytest.mark.parametrize(
    ("scores", "targets", "ignore", "message"),
    [
        (torch.zeros(4, 3), torch.zeros(4, 2), None, r"targets have shape \(4, 2\) but scores have \(4, 3\)"),
        (torch.zeros(4), torch.zeros(4), None, r"scores have shape \(4,\): expected \(N, C\)"),
        (torch.zeros(0, 3), torch.zeros(0, 3), None, r"at least one image"),
        (torch.zeros(4, 3), torch.full((4, 3), 2.0), None, r"targets hold 2\.0 at \[0, 0\]: expected only 0 and 1"),
        (torch.zeros(4, 3), torch.full((4, 3), math.nan), None, r"targets hold nan at \[0, 0\]"),
        (torch.tensor([[0.0], [math.nan]]), torch.zeros(2, 1), None, r"scores hold nan at \[1, 0\]"),
        (torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(4, 2).bool(), r"ignore has shape \(4, 2\)"),
    ],
)
def test_bad_input_is_refused_by_name_value_and_place(scores, targets, ignore, message):
    with pytest.raises(ValueError, match=message):
        average_precision(scores, targets, ignore)


def test_a_mask_that_is_not_bool_and_unknown_names_and_ranges_are_refused():
    zeros = torch.zeros(2, 1)
    with pytest.raises(TypeError, match="ignore has dtype uint8: expected bool"):
        average_precision(zeros, zeros, zeros.byte())
    with pytest.raises(ValueError, match="unknown AP variant 'voc': choose one of non-interpolated"):
        average_precision(zeros, zeros, variant="voc")
    with pytest.raises(ValueError, match=r"top_k is 0"):
        precision_recall_f1(zeros, zeros, top_k=0)
    with pytest.raises(ValueError, match=r"threshold is 50"):
        precision_recall_f1(zeros, zeros, threshold=50)


def test_inputs_may_require_gradients_and_are_left_unchanged():
    scores, targets = random_predictions()
    scores.requires_grad_()
    before = scores.detach().clone()
    average_precision(scores, targets)
    precision_recall_f1(scores.sigmoid(), targets, ignore=targets.bool())
    assert torch.equal(scores, before)


def test_the_difficult_subset_is_every_image_with_at_least_one_difficult_label():
    assert difficult_subset(torch.tensor([[0, 1], [0, 0], [1, 1]]).bool()).tolist() == [True, False, True]
    with pytest.raises(ValueError, match=r"expected a bool \(N, C\) mask"):
        difficult_subset(torch.zeros(3, 2))


@pytest.mark.parametrize("threshold", [-0.01, 1.01, math.nan])
def test_a_threshold_is_a_probability_and_both_ends_are_allowed(threshold):
    p, y = torch.tensor([[0.0, 1.0]]), torch.tensor([[0, 1]])
    with pytest.raises(ValueError, match=f"threshold is {threshold}: expected a probability"):
        precision_recall_f1(p, y, threshold=threshold)
    assert precision_recall_f1(p, y, threshold=0)["OP"] == 0.5, "everything is predicted"
    assert precision_recall_f1(p, y, threshold=1)["OP"] == 1


def test_the_default_threshold_is_one_half_and_belongs_to_the_predicted():
    assert precision_recall_f1([[0.5, 0.499]], [[1, 1]])["OR"] == 0.5


def test_probabilities_of_exactly_zero_and_one_are_no_logits():
    assert precision_recall_f1([[0.0, 1.0]], [[0, 1]])["OF1"] == 1


def test_more_than_two_dimensions_and_a_mask_of_more_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 2, 2\)"):
        average_precision(torch.zeros(2, 2, 2), torch.zeros(2, 2, 2))
    with pytest.raises(ValueError, match="at least one image and one class"):
        average_precision(torch.zeros(2, 0), torch.zeros(2, 0))
    with pytest.raises(ValueError, match="expected a bool"):
        difficult_subset(torch.zeros(3).bool())


def test_whole_numbers_are_scores_too_and_are_compared_exactly():
    """Integers beyond the precision of float32 still rank as they are."""
    scores = np.array([[2**24], [2**24 + 1]])
    assert average_precision(scores, [[0], [1]]).item() == 1
    assert average_precision(scores, [[1], [0]]).item() == 0.5


def test_probabilities_in_whole_numbers_are_ranked_as_numbers():
    p = np.array([[0, 1, 0]], dtype=np.uint8)
    assert precision_recall_f1(p, [[0, 1, 0]], threshold=0.0, top_k=1)["OF1"] == 1
    assert average_precision(np.array([[False], [True]]), [[0], [1]]).item() == 1
