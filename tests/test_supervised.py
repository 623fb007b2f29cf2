import dataclasses

import pytest
import torch
from striped_images import QUICK, striped_images
from trainings import train_supervised

from udlib import losses
from udlib.backbones import backbone
from udlib.course.store import recipe
from udlib.heads import DualBranchNet
from udlib.losses import dual_branch_loss, ova_loss
from udlib.methods import method_of
from udlib.methods.supervised import METHOD, supervised_loss
from udlib.training import evaluate
from udlib.training.batches import ArrayData, Batch
from udlib.workshop import trainings as workshop


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    monkeypatch.setenv("UDLIB_PROGRESS", "0")


def batch():
    draw = torch.Generator().manual_seed(0)
    targets = (torch.rand(6, 3, generator=draw) < 0.5).float()
    ignore = torch.rand(6, 3, generator=draw) < 0.2
    return Batch(torch.randn(6, 3, 16, 16, generator=draw), targets, ignore, torch.arange(6))


@pytest.mark.parametrize("scale", ["paper", "released"])
def test_the_loss_is_the_dual_branch_loss_of_the_networks_prediction(scale):
    torch.manual_seed(0)
    model, given = DualBranchNet(backbone("small_narrow"), 3).eval(), batch()
    found = supervised_loss(lam=0.7, scale=scale)(model, given)
    expected = dual_branch_loss(model(given.images), given.targets, lam=0.7, ignore=given.ignore, scale=scale)
    assert found.keys() == expected.keys() == {"total", "ova", "pal_n"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_at_lambda_0_the_loss_is_bce_and_the_calibration_branch_stays_out_of_it():
    torch.manual_seed(0)
    model, given = DualBranchNet(backbone("small_narrow"), 3).eval(), batch()
    found = supervised_loss(lam=0.0)(model, given)
    torch.testing.assert_close(found["total"], ova_loss(model(given.images).logits, given.targets, given.ignore))
    found["total"].backward()
    assert all(parameter.grad is None for parameter in model.head.calibration.parameters())


@pytest.mark.parametrize(
    "loss, literal",
    [
        ("softmax", lambda z, y: losses.pal_n_loss(z, y, temperature=3.0)),
        ("label-smoothing", lambda z, y: 3 * losses.label_smoothing_loss(z, y, target_logit=9.0)),
        ("one-over-k", losses.one_over_k_softmax_loss),
        ("focal", lambda z, y: losses.focal_loss(z, y, gamma=2.0)),
        ("asymmetric", lambda z, y: losses.asymmetric_loss(z, y, gamma_neg=4.0, gamma_pos=0.0, margin=0.05)),
    ],
)
def test_other_losses_on_hard_labels_train_the_classifier_alone(loss, literal):
    torch.manual_seed(0)
    model, given = DualBranchNet(backbone("small_narrow"), 3, calibration=False).eval(), batch()._replace(ignore=None)
    found = supervised_loss(lam=0.0, loss=loss)(model, given)
    assert found.keys() == {"total"}
    torch.testing.assert_close(found["total"], literal(model(given.images).logits, given.targets))


def test_other_losses_do_not_stand_beside_the_calibration_branch():
    with pytest.raises(ValueError, match="loss is 'softmax' and lam is 0.1"):
        supervised_loss(lam=0.1, loss="softmax")
    known = "ova, label-smoothing, softmax, one-over-k, focal, asymmetric"
    with pytest.raises(ValueError, match=f"loss is 'hinge': choose one of {known}"):
        supervised_loss(lam=0.0, loss="hinge")


@pytest.mark.parametrize("loss", ["focal", "asymmetric"])
def test_focal_and_asymmetric_loss_leave_out_ignored_labels_and_are_scored_by_sigmoids(loss):
    torch.manual_seed(0)
    model, chosen = DualBranchNet(backbone("small_narrow"), 3, calibration=False).eval(), batch()
    literal = getattr(losses, f"{loss}_loss")
    found = supervised_loss(lam=0.0, loss=loss)(model, chosen)["total"]
    torch.testing.assert_close(found, literal(model(chosen.images).logits, chosen.targets, ignore=chosen.ignore))
    assert METHOD.scores(recipe(loss=loss)) == "sigmoid" and METHOD.scores(recipe(loss="one-over-k")) == "softmax"
    with pytest.raises(ValueError, match=f"loss is '{loss}' and lam is 0.1"):
        supervised_loss(lam=0.1, loss=loss)


def test_gamma_is_that_of_the_focal_loss_and_of_no_other():
    torch.manual_seed(0)
    model, chosen = DualBranchNet(backbone("small_narrow"), 3, calibration=False).eval(), batch()
    found = supervised_loss(lam=0.0, loss="focal", gamma=0.0)(model, chosen)["total"]
    torch.testing.assert_close(found, ova_loss(model(chosen.images).logits, chosen.targets, chosen.ignore))
    for loss in ("ova", "asymmetric"):
        one, other = (supervised_loss(lam=0.0, loss=loss, gamma=gamma)(model, chosen) for gamma in (2.0, 5.0))
        assert torch.equal(one["total"], other["total"])


@pytest.mark.parametrize("gamma", [-1.0, float("inf"), float("nan")])
def test_a_gamma_that_is_negative_or_not_finite_is_refused(gamma):
    with pytest.raises(ValueError, match=f"gamma is {gamma}: expected at least 0, and finite"):
        supervised_loss(lam=0.0, loss="focal", gamma=gamma)
    with pytest.raises(ValueError, match="gamma is"):
        recipe(loss="focal", gamma=gamma)


def test_a_recipe_of_the_usual_gamma_keeps_its_key():
    assert recipe(gamma=2.0) == recipe() and recipe(gamma=2.0).key == recipe().key == "scenes-supervised-f6e2abdfad"
    assert recipe(loss="focal").key != recipe(loss="focal", gamma=3.0).key


@pytest.mark.parametrize("lam", [-0.1, float("nan")])
def test_a_negative_lambda_is_refused(lam):
    with pytest.raises(ValueError, match=f"lam is {lam}: expected at least 0"):
        supervised_loss(lam)
    with pytest.raises(ValueError, match="lam is"):
        train_supervised(striped_images(), QUICK, lam=lam, network="small_narrow")


def test_training_learns_both_branches():
    train, test = striped_images(128), striped_images(64, seed=1)
    config = dataclasses.replace(QUICK, epochs=6, batch_size=16)
    model, history = train_supervised(train, config, lam=0.5, network="small_narrow", embedding=16, validation=test)
    assert history.column("mAP")[-1] == evaluate(model, test, precision="fp32")["mAP"] > 0.98
    assert history.column("ova")[-1] < 0.5 * history.column("ova")[0]
    assert history.column("pal_n")[-1] < 0.5 * history.column("pal_n")[0]


def test_the_arguments_shape_the_network():
    options = {"network": "small_narrow", "pooling": "max", "embedding": 7, "max_steps": 1}
    model, _ = train_supervised(striped_images(), QUICK, **options)
    assert model.pooling == "max" and model.head.calibration[0].out_features == 7
    assert model.backbone.out_channels == 64 and model.head.classification.out_features == 3


def test_one_seed_starts_every_lambda_from_the_same_network_and_shows_it_the_same_batches(monkeypatch):
    starts, shown = [], []

    def recording_fit(model, data, loss_fn, config, **options):
        starts.append({name: value.clone() for name, value in model.state_dict().items()})
        rows = []

        def recording_loss(model, batch):
            rows.append((batch.index.tolist(), batch.images.sum().item()))
            return loss_fn(model, batch)

        shown.append(rows)
        return fit(model, data, recording_loss, config, **options)

    fit = workshop.fit
    monkeypatch.setattr(workshop, "fit", recording_fit)
    for lam in (0.0, 0.1, 10.0):
        train_supervised(striped_images(), QUICK, lam=lam, network="small_narrow", embedding=16)
    assert not any(name.startswith("head.calibration") for name in starts[0])
    for start in starts[1:]:
        assert all(torch.equal(value, start[name]) for name, value in starts[0].items())
    assert shown[0] == shown[1] == shown[2]


@pytest.mark.parametrize("change", [{"lam": 0.2}, {"scale": "released"}, {"pooling": "max"}])
def test_a_checkpoint_of_another_loss_or_pooling_is_refused_by_name(tmp_path, change):
    options = {"network": "small_narrow", "embedding": 16, "checkpoint": tmp_path, "max_steps": 1}
    train_supervised(striped_images(), QUICK, lam=0.1, **options)
    (name, value), *_ = change.items()
    with pytest.raises(ValueError, match=f"belongs to another training .{name}: saved .*, now {value!r}"):
        train_supervised(striped_images(), QUICK, **{"lam": 0.1, **options, **change})


def test_a_callers_identity_joins_the_checkpoints(tmp_path):
    options = {"network": "small_narrow", "checkpoint": tmp_path, "max_steps": 1}
    train_supervised(striped_images(), QUICK, identity={"regime": "a"}, **options)
    with pytest.raises(ValueError, match="regime: saved 'a', now 'b'"):
        train_supervised(striped_images(), QUICK, identity={"regime": "b"}, **options)


def test_a_mistyped_option_is_refused():
    with pytest.raises(ValueError, match="has no field 'chekpoint'"):
        train_supervised(striped_images(), QUICK, network="small_narrow", chekpoint="x")


def test_images_decoded_on_demand_train_the_same_network_as_images_in_memory():
    data = striped_images()

    class OnDemand(torch.utils.data.Dataset):
        targets, difficult = data.targets, torch.zeros_like(data.targets, dtype=torch.bool)

        def __len__(self):
            return len(self.targets)

        def __getitem__(self, row):
            return data.images[row], self.targets[row].float(), self.difficult[row]

    options = {"network": "small_narrow", "embedding": 16}
    one, _ = train_supervised(data, QUICK, **options)
    other, _ = train_supervised(OnDemand(), QUICK, validation=OnDemand(), **options)
    with_ignore, _ = train_supervised(
        ArrayData(data.images, data.targets, ignore=torch.zeros_like(data.targets, dtype=torch.bool)), QUICK, **options
    )
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]) and torch.equal(value, with_ignore.state_dict()[name])


@pytest.mark.parametrize("method", ["supervised", "distillation", "self_distillation"])
def test_a_recipe_without_bias_has_none_in_its_classifier_and_all_else_as_ever(method):
    with_bias, without = (
        method_of(method).build(recipe(method, network="small_narrow", bias=bias), 5) for bias in (True, False)
    )
    assert without.state_dict().keys() == with_bias.state_dict().keys() - {"head.classification.bias"}


def test_training_without_bias_trains_no_bias():
    model, _ = train_supervised(
        striped_images(32), dataclasses.replace(QUICK, epochs=1), network="small_narrow", embedding=8, bias=False
    )
    assert model.head.classification.bias is None and model.head.calibration is not None
