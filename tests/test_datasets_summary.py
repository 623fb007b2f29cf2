import numpy as np
import pytest
import torch

from udlib.datasets.summary import Labels, class_table, label_statistics, size_statistics

TARGETS = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0]], dtype=torch.uint8)
DIFFICULT = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 0]], dtype=torch.bool)


def test_labels_are_counted():
    summary = label_statistics(TARGETS, DIFFICULT)
    assert summary == Labels(4, {0: 1, 1: 1, 2: 2}, [3, 2, 0], [2, 1, 0], 2, [0, 0, 0], 0)
    assert summary.mean == 5 / 4 and summary.unlabelled == 1


def test_counts_equal_a_literal_loop():
    draw = np.random.default_rng(0)
    targets = torch.from_numpy((draw.random((50, 7)) < 0.3).astype(np.uint8))
    difficult = torch.from_numpy(draw.random((50, 7)) < 0.3) & targets.bool()
    summary = label_statistics(targets, difficult)
    for k in range(7):
        assert summary.positives[k] == sum(int(targets[i, k]) for i in range(50))
        assert summary.difficult[k] == sum(bool(difficult[i, k]) for i in range(50))
    counts = [sum(int(targets[i, k]) for k in range(7)) for i in range(50)]
    assert (
        summary.labels_per_image == {n: counts.count(n) for n in sorted(set(counts))}
        and sum(counts) / 50 == summary.mean
    )
    assert summary.difficult_images == sum(any(difficult[i, k] for k in range(7)) for i in range(50))


def test_no_images_have_no_mean():
    summary = label_statistics(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool))
    assert summary.images == summary.unlabelled == 0 and np.isnan(summary.mean) and summary.positives == [0, 0, 0]
    with pytest.raises(ValueError, match=r"targets \(4, 3\) and difficult \(4, 2\)"):
        label_statistics(TARGETS, DIFFICULT[:, :2])
    with pytest.raises(ValueError, match=r"expected one shape \(N, C\)"):
        label_statistics(TARGETS[0], DIFFICULT[0])


def test_sizes_are_ranges_medians_and_the_commonest():
    summary = size_statistics([(10, 4), (30, 2), (20, 2), (20, 2)])
    assert summary.width == (10, 20, 30) and summary.height == (2, 2, 4)
    assert summary.commonest == (20, 2) and summary.share == 0.5
    assert size_statistics(iter([(10, 4), (13, 4)])).width == (10, 11.5, 13)
    with pytest.raises(ValueError, match="no sizes"):
        size_statistics([])


def test_the_table_has_a_row_per_split_and_class():
    summary = class_table(
        {"train": label_statistics(TARGETS, DIFFICULT), "test": label_statistics(TARGETS[:1], DIFFICULT[:1])},
        ["cat", "dog", "owl"],
    )
    assert summary.values.tolist() == [
        ["train", "cat", 4, 3, 2, 0.75, 0],
        ["train", "dog", 4, 2, 1, 0.5, 0],
        ["train", "owl", 4, 0, 0, 0.0, 0],
        ["test", "cat", 1, 1, 1, 1.0, 0],
        ["test", "dog", 1, 1, 0, 1.0, 0],
        ["test", "owl", 1, 0, 0, 0.0, 0],
    ]


def test_unknown_labels_are_counted_for_each_class_and_are_no_negatives():
    unknown = torch.tensor([[0, 0, 1], [1, 1, 1], [0, 0, 1], [0, 0, 1]], dtype=torch.bool)
    summary = label_statistics(TARGETS, DIFFICULT, unknown)
    assert summary.unknown == [1, 1, 4] and summary.unknown_images == 4 and summary.positives == [3, 2, 0]
    shares = class_table({"train": summary}, ["cat", "dog", "owl"])[["unknown", "share"]].values.tolist()
    assert shares[:2] == [[1, 3 / 3], [1, 2 / 3]] and shares[2][0] == 4 and np.isnan(shares[2][1])
    with pytest.raises(ValueError, match=r"unknown has the shape \(4, 2\): expected \(4, 3\)"):
        label_statistics(TARGETS, DIFFICULT, unknown[:, :2])
