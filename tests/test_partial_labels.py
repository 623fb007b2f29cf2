"""Labels that nobody knows, and weights of images: what they do to losses, metrics, calibration, and a whole training."""

import csv
import random

import pytest
import torch
from torch import nn
from trees import csv_tree

from udlib.datasets.base import label_fingerprint
from udlib.datasets.custom import Custom
from udlib.heads import Prediction
from udlib.losses import asymmetric_loss, dual_branch_loss, ova_loss, uncertainty_distillation_loss
from udlib.methods.detection.losses import prediction_transfer_loss, region_feature_loss
from udlib.methods.parallel import parallel_loss
from udlib.methods.supervised import supervised_loss
from udlib.posthoc import CALIBRATORS
from udlib.training.batches import ArrayData, Batch, as_data, load
from udlib.training.evaluation import Split, measure
from udlib.training.prediction import evaluate
from udlib.workshop import settings, train_model
from udlib.workshop.splits import aligned, array_data

DRAW = torch.Generator().manual_seed(0)
N, C = 12, 5
Z, T = torch.randn(N, C, generator=DRAW), torch.randn(N, C, generator=DRAW)
Y = (torch.rand(N, C, generator=DRAW) < 0.4).to(torch.uint8)
UNKNOWN = torch.rand(N, C, generator=DRAW) < 0.2
MAPS = torch.randn(2, N, 3, 3, generator=DRAW)
WEIGHTS = torch.tensor([1, 2, 3, 1, 1, 2, 4, 1, 1, 2, 1, 5]).float()


def prediction(logits):
    return Prediction(logits, 3 * logits, None, None)


LOSSES = {
    "dual branch": lambda rows, w: dual_branch_loss(prediction(Z[rows]), Y[rows], 0.3, UNKNOWN[rows], weights=w),
    "released": lambda rows, w: dual_branch_loss(prediction(Z[rows]), Y[rows], 0.3, None, "released", weights=w),
    "distillation": lambda rows, w: uncertainty_distillation_loss(
        prediction(T[rows]),
        prediction(Z[rows]),
        0.5,
        0.5,
        MAPS[0][rows],
        MAPS[1][rows],
        ignore=UNKNOWN[rows],
        weights=w,
    ),
    "parallel": lambda rows, w: parallel_loss(Z[rows], Y[rows], T[rows], T[rows] / 2, 0.3, UNKNOWN[rows], weights=w),
    "alone": lambda rows, w: parallel_loss(Z[rows], Y[rows], weights=w),
    "transfer": lambda rows, w: prediction_transfer_loss(Z[rows], 2 * Z[rows], Y[rows], T[rows], UNKNOWN[rows], w),
    "regions": lambda rows, w: {"total": region_feature_loss(T[rows], Z[rows], torch.arange(len(rows)), len(rows), w)},
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_weight_counts_as_so_many_copies_of_the_image(name):
    rows = torch.arange(N)
    copies = rows.repeat_interleave(WEIGHTS.int())
    weighted, repeated = LOSSES[name](rows, WEIGHTS / WEIGHTS.mean()), LOSSES[name](copies, None)
    plain, ones = LOSSES[name](rows, None), LOSSES[name](rows, torch.ones(N))
    for term in weighted:
        torch.testing.assert_close(weighted[term], repeated[term])
        torch.testing.assert_close(plain[term], ones[term])


@pytest.mark.parametrize("loss", ["ova", "softmax", "label-smoothing", "one-over-k", "focal", "asymmetric"])
def test_every_supervised_loss_takes_weights_and_unknown_labels(loss):
    class Fixed(nn.Module):
        def forward(self, images, calibration):
            return Prediction(images, None, None, None)

    loss_fn = supervised_loss(lam=0, loss=loss)
    rows = torch.arange(N)
    copies = rows.repeat_interleave(WEIGHTS.int())
    weighted = Batch(Z, Y.float(), UNKNOWN, rows, weights=WEIGHTS / WEIGHTS.mean())
    repeated = Batch(Z[copies], Y[copies].float(), UNKNOWN[copies], copies)
    torch.testing.assert_close(loss_fn(Fixed(), weighted)["total"], loss_fn(Fixed(), repeated)["total"])
    other = Z.masked_fill(UNKNOWN, 3.0)
    torch.testing.assert_close(
        loss_fn(Fixed(), weighted)["total"], loss_fn(Fixed(), weighted._replace(images=other))["total"]
    )


def test_batches_carry_weights_of_mean_one_over_the_training_set():
    data = ArrayData(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.ones(4, 1), weights=torch.tensor([1.0, 1, 2, 4]))
    batches = list(
        load(data, [torch.tensor([3, 0]), torch.tensor([1, 2])], lambda x: x.float(), torch.device("cpu"), 0)
    )
    assert [batch.weights.tolist() for batch in batches] == [[2, 0.5], [0.5, 1]]


@pytest.mark.parametrize("weights", [[1.0, -1], [0.0, 0], [1.0, float("nan")], [1.0], [1, 2]])
def test_weights_that_cannot_be_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        ArrayData(torch.zeros(2, 3, 2, 2, dtype=torch.uint8), torch.ones(2, 1), weights=torch.tensor(weights))


def split_with(targets, unknown=None, difficult=None):
    none = torch.zeros(targets.shape, dtype=torch.bool)
    return Split(tuple("abcde"), targets, none if difficult is None else difficult, None, unknown)


def test_no_number_depends_on_what_is_said_of_an_unknown_label():
    expected = measure(Z, split_with(Y, UNKNOWN))
    for targets in (Y.masked_fill(UNKNOWN, 0), Y.masked_fill(UNKNOWN, 1)):
        assert measure(Z, split_with(targets, UNKNOWN)) == pytest.approx(expected, nan_ok=True)
    moved = measure(torch.where(UNKNOWN, Z + 0.3, Z), split_with(Y, UNKNOWN))
    for name in expected:
        if "top3" not in name:  # an unknown label takes one of the three places all the same
            assert moved[name] == pytest.approx(expected[name], nan_ok=True), name
    assert measure(Z, split_with(Y, torch.zeros_like(UNKNOWN))) == pytest.approx(measure(Z, split_with(Y)), nan_ok=True)


def test_images_whose_labels_are_all_unknown_change_nothing():
    unknown = torch.zeros_like(UNKNOWN)
    unknown[8:] = True
    whole, part = measure(Z, split_with(Y, unknown)), measure(Z[:8], split_with(Y[:8]))
    assert whole == pytest.approx(part, nan_ok=True)


@pytest.mark.parametrize("kind", CALIBRATORS)
def test_a_calibrator_is_fitted_on_known_labels_alone(kind):
    y = Y.clone()
    y[:2], y[2:4] = 0, 1
    unknown = torch.zeros_like(UNKNOWN)
    unknown[8:] = True
    whole, part = CALIBRATORS[kind](Z, y, unknown), CALIBRATORS[kind](Z[:8], y[:8])
    torch.testing.assert_close(whole(Z), part(Z))


def test_validation_leaves_unknown_labels_out():
    class Fixed(nn.Module):
        def forward(self, images, calibration=True):
            return Prediction(images.flatten(1)[:, :C], None, None, None)

    images = torch.zeros(N, 3, 1, 2)
    images.view(N, -1)[:, :C] = Z
    unknown = torch.zeros_like(UNKNOWN)
    unknown[8:] = True

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return N

        def __getitem__(self, i):
            return images[i]

    def numbers(targets):
        return evaluate(Fixed(), ArrayData(Images(), targets, unknown=unknown))

    expected = nn.functional.binary_cross_entropy_with_logits(Z[:8], Y[:8].float()).item()
    assert numbers(Y)["NLL"] == pytest.approx(expected)
    assert numbers(Y) == pytest.approx(numbers(Y.masked_fill(unknown, 1)))


@pytest.fixture
def partial(tmp_path):
    """A tree of which a fifth of the labels is unknown, and with weights."""
    root, draw = csv_tree(tmp_path / "data", 40), random.Random(0)
    with open(root / "labels.csv") as file:
        head, *lines = csv.reader(file)
    rows = [[*head, "weight"]]
    for line in lines:
        marks = [cell if draw.random() > 0.2 else "-1" for cell in line[2:]]
        rows.append([*line[:2], *marks, draw.choice(("1", "0", "2.5"))])
    with open(root / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def test_data_for_a_training_ignore_unknown_labels_under_every_policy(partial):
    data = Custom(partial, "train")
    for policy in ("positive", "negative", "ignore"):
        arrays = array_data(data, 8, policy)
        assert torch.equal(arrays.ignore, data.unknown) and torch.equal(arrays.unknown, data.unknown)
        assert torch.equal(arrays.weights, data.weights)
    assert torch.equal(as_data(data).ignore, data.unknown) and torch.equal(as_data(data).weights, data.weights)
    order = data.classes[::-1]
    assert torch.equal(aligned(data, order).unknown, data.unknown.flip(1))
    known = Custom(partial, "train")
    known.unknown = None
    assert len({label_fingerprint(data), label_fingerprint(known)}) == 2


def test_a_training_begins_goes_on_and_measures_without_the_unknown_labels(partial, tmp_path):
    model = train_model(
        partial, tmp_path / "model", settings(network="small_narrow", epochs=1, batch_size=8, size=16, lam=0.1)
    )
    for split in ("val", "test"):
        numbers = model.metrics[split]["uncalibrated"]
        data = Custom(partial, split)
        assert numbers == pytest.approx(measure(model.logits(data), aligned(data, model.classes)), nan_ok=True)
        guessed = data.targets.masked_fill(data.unknown, 1)
        assert numbers["NLL"] != pytest.approx(
            measure(model.logits(data), split_with(guessed)._replace(classes=()))["NLL"]
        )


def test_losses_of_single_branches_agree_with_the_formula():
    kept = ~UNKNOWN
    bce = nn.functional.binary_cross_entropy_with_logits(Z, Y.float(), reduction="none")
    expected = (WEIGHTS / WEIGHTS.mean() * (bce * kept).sum(1)).mean()
    weighted = dual_branch_loss(Prediction(Z, None, None, None), Y, 0, UNKNOWN, weights=WEIGHTS / WEIGHTS.mean())
    torch.testing.assert_close(weighted["ova"], expected)
    assert (
        ova_loss(Z, Y, UNKNOWN, "none").shape == asymmetric_loss(Z, Y, ignore=UNKNOWN, reduction="none").shape == (N,)
    )
