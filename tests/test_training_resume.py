import dataclasses
import os
import signal

import pytest
import torch
from forks import kill_in_fork
from striped_images import QUICK, both_branches, net, same_weights, striped_images
from trainings import fit_flat

from udlib.training import Saving, TrainingConfig, Watch, evaluate, fit
from udlib.training.checkpoints import load_checkpoint


@pytest.mark.parametrize(
    "config",
    [
        QUICK,
        dataclasses.replace(QUICK, precision="bf16", erase=0.5, epochs=4),
        dataclasses.replace(QUICK, optimizer="sgd", schedule="cosine", channels_last=False),
        dataclasses.replace(QUICK, ema=0.4, crop=12),
    ],
    ids=["adam", "bf16-erasing", "sgd", "running-average-of-crops"],
)
@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_run_stopped_after_any_epoch_and_resumed_is_bit_identical_to_one_never_stopped(tmp_path, config, keep):
    data = striped_images()

    def options():
        return {"validate": lambda model: evaluate(model, data, precision="fp32"), "keep": keep, "select": "NLL"}

    whole, pieces = net(), net()
    uninterrupted = fit_flat(whole, data, both_branches, config, **options())

    def stop(*_):
        raise KeyboardInterrupt

    for epoch in range(1, config.epochs + 1):
        message = (
            f"training stopped after {epoch} epochs: {epoch} are saved in '.*', and the same call continues from there"
        )
        with pytest.raises(KeyboardInterrupt, match=message):
            fit_flat(pieces, data, both_branches, config, **options(), on_epoch=stop, checkpoint=tmp_path)
        pieces = net(seed=epoch)  # other weights, which the checkpoint replaces
    resumed = fit_flat(pieces, data, both_branches, config, checkpoint=tmp_path, **options())

    assert same_weights(whole, pieces)
    assert resumed.best_epoch == uninterrupted.best_epoch
    for name in ("epoch", "lr", "total", "ova", "pal_n", "mAP", "NLL"):
        assert resumed.column(name) == uninterrupted.column(name)


def test_dropout_draws_the_same_after_a_resume(tmp_path):
    def dropping(seed):
        model = net(seed)
        model.backbone.append(torch.nn.Dropout(0.5))
        return model

    def stop(epoch, *_):
        if epoch == 2:
            raise KeyboardInterrupt

    whole, first, resumed = dropping(0), dropping(0), dropping(1)
    fit(whole, striped_images(), both_branches, QUICK)
    with pytest.raises(KeyboardInterrupt):
        fit(first, striped_images(), both_branches, QUICK, watch=Watch(on_epoch=stop), saving=Saving(tmp_path))
    torch.rand(17)  # other draws in between
    fit(resumed, striped_images(), both_branches, QUICK, saving=Saving(tmp_path))
    assert same_weights(whole, resumed)


def train_until_the_kill(folder, threads):
    """A training that is killed in the middle of its third epoch."""
    torch.set_num_threads(threads)
    steps = []

    def loss(model, batch):
        steps.append(1)
        if len(steps) == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return both_branches(model, batch)

    fit(net(), striped_images(), loss, QUICK, saving=Saving(folder))


def test_a_run_killed_by_the_system_resumes_bit_identically(tmp_path):
    assert kill_in_fork(train_until_the_kill, tmp_path, torch.get_num_threads()) == -signal.SIGKILL
    data = striped_images()
    whole, resumed = net(), net(seed=9)
    fit(whole, data, both_branches, QUICK)
    epochs = []
    fit(
        resumed,
        data,
        both_branches,
        QUICK,
        watch=Watch(on_epoch=lambda epoch, *_: epochs.append(epoch)),
        saving=Saving(tmp_path),
    )
    assert epochs == [3] and same_weights(whole, resumed)


def test_checkpoints_come_at_their_interval_and_at_the_end(tmp_path):
    present = []
    config = dataclasses.replace(QUICK, epochs=5)

    def look(*_):
        found = load_checkpoint(tmp_path)
        present.append(len(found[1]["rows"]) if found else 0)

    fit(net(), striped_images(), both_branches, config, watch=Watch(on_epoch=look), saving=Saving(tmp_path, every=2))
    assert present == [0, 2, 2, 4, 5]


def test_stopping_without_a_checkpoint_says_that_nothing_is_saved():
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="stopped after 1 epochs: none is saved; pass saving="):
        fit(net(), striped_images(), both_branches, QUICK, watch=Watch(on_epoch=stop))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    fit(net(), striped_images(), both_branches, QUICK, saving=Saving(folder, identity={"lam": 0.5}))
    return folder


@pytest.mark.parametrize(
    "change, message",
    [
        ({"config": dataclasses.replace(QUICK, lr=0.02)}, "config.lr: saved 0.01, now 0.02"),
        ({"identity": {"lam": 1.0}}, "lam: saved 0.5, now 1.0"),
        ({"max_steps": 5}, "max_steps: saved None, now 5"),
        ({"data": striped_images(seed=3)}, r"training set: saved '\(96, 3\) labels, .*', now '\(96, 3\) labels, "),
        ({"model": net(classes=3, calibration=False)}, "architecture .*head.calibration.0.bias: saved .16,., now None"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_by_what_differs(finished, change, message):
    call = {"model": net(), "data": striped_images(), "loss_fn": both_branches, "config": QUICK}
    call["identity"] = {"lam": 0.5}
    with pytest.raises(ValueError, match=message):
        fit_flat(**{**call, **change}, checkpoint=finished)


def test_a_finished_checkpoint_gives_its_network_back_without_training(finished):
    model = net(seed=5)
    history = fit(model, striped_images(), None, QUICK, saving=Saving(finished, identity={"lam": 0.5}))
    again = net()
    fit(again, striped_images(), both_branches, QUICK)
    assert same_weights(model, again) and history.column("epoch") == [1, 2, 3]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_learns_and_resumes_too(tmp_path):
    data, model = striped_images(128), net()
    config = TrainingConfig(epochs=6, batch_size=16, lr=0.01, shift=1)
    fit(model, data, both_branches, config, saving=Saving(tmp_path))
    again = net(seed=1)
    fit(again, data, both_branches, config, saving=Saving(tmp_path))
    assert same_weights(model, again) and evaluate(model, data)["mAP"] > 0.98
