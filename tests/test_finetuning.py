"""Fine-tuning: two learning rates, frozen stages, AdamW; each against torch written by hand."""

import copy
import dataclasses

import pytest
import torch
from striped_images import QUICK, both_branches, net, same_weights, striped_images
from torch import nn

from udlib.backbones import Backbone, backbone
from udlib.heads import DualBranchNet
from udlib.training import Watch, fit
from udlib.training.optimization import TrainingConfig, frozen, learning_rate, make_optimizer

# One step is one epoch of one batch, without anything that would change the gradient.
PLAIN = dataclasses.replace(
    QUICK, epochs=1, optimizer="sgd", momentum=0.0, weight_decay=0.0, clip=0.0, schedule="constant", lr=0.01
)


def state_of(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def recorded_batches(config, data, model):
    """Train, and give the weights, gradients and learning rates before each step's update and at the end."""
    steps = []

    def loss(network, batch):
        steps.append((state_of(network), batch))
        return both_branches(network, batch)

    fit(model, data, loss, config)
    return steps


def by_hand(start, batch):
    """The gradient of one batch at these weights."""
    model = net()
    model.to(memory_format=torch.channels_last)
    model.load_state_dict(start)
    model.train()
    both_branches(model, batch)["total"].backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle", "step"])
def test_heads_move_by_their_own_rate_times_the_gradient_and_the_backbone_by_its(schedule):
    config = dataclasses.replace(PLAIN, epochs=3, schedule=schedule, head_lr=0.05)
    data, model = striped_images(32), net()
    steps = recorded_batches(config, data, model)
    states = [state for state, _ in steps] + [state_of(model)]
    assert len(steps) == 3
    for step, (before, batch) in enumerate(steps):
        rate = learning_rate(step, 3, config)
        for name, gradient in by_hand(before, batch).items():
            own = rate * 5 if name.startswith("head.") else rate
            torch.testing.assert_close(states[step + 1][name], before[name] - own * gradient, atol=1e-6, rtol=1e-4)


def test_the_rate_in_the_history_is_the_backbones():
    history = fit(net(), striped_images(32), both_branches, dataclasses.replace(PLAIN, head_lr=0.5))
    assert history.column("lr") == [0.01]


def test_equal_rates_train_as_one_rate_does():
    one, other = net(), net()
    fit(one, striped_images(), both_branches, QUICK)
    fit(other, striped_images(), both_branches, dataclasses.replace(QUICK, head_lr=QUICK.lr))
    assert same_weights(one, other)


def test_a_network_without_a_backbone_has_no_second_rate():
    with pytest.raises(
        ValueError,
        match="head_lr is 0.1, but a Linear has no backbone that could have another learning rate: leave head_lr",
    ):
        make_optimizer(nn.Linear(2, 2), TrainingConfig(head_lr=0.1))
    with pytest.raises(ValueError, match="head_lr is 0: expected a number above 0"):
        TrainingConfig(head_lr=0)


def test_adamw_is_torchs():
    config = dataclasses.replace(PLAIN, epochs=4, optimizer="adamw", weight_decay=0.1, schedule="cosine", head_lr=0.03)
    data, model, reference = striped_images(32), net(), net()
    steps = recorded_batches(config, data, model)
    reference.to(memory_format=torch.channels_last).train()
    groups = [{"params": reference.backbone.parameters()}, {"params": reference.head.parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=0.1, foreach=False, fused=False)
    states = [state for state, _ in steps] + [state_of(model)]
    for step, (before, batch) in enumerate(steps):
        reference.load_state_dict(before)  # a gradient of nearly 0 is noise, which Adam enlarges: begin each step alike
        rate = learning_rate(step, 4, config)
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = rate, 3 * rate
        optimizer.zero_grad()
        both_branches(reference, batch)["total"].backward()
        optimizer.step()
        for name, value in reference.state_dict().items():
            torch.testing.assert_close(states[step + 1][name], value, atol=1e-5, rtol=1e-4)
    adam = net()
    fit(adam, data, both_branches, dataclasses.replace(config, optimizer="adam"))
    assert not same_weights(adam, model), "Adam decays weights otherwise"


# Frozen stages


@pytest.mark.parametrize("k", [1, 2, 3])
def test_stem_and_first_stages_stay_bit_for_bit_with_their_statistics_and_the_rest_changes(k):
    model = net()
    before = state_of(model)
    layers = [str(layer) for layer in range(3 + k)]  # a stem of three layers, then one layer for each stage
    during = []

    def loss(network, batch):
        during.append([part.training for part in network.backbone])
        return both_branches(network, batch)

    fit(model, striped_images(), loss, dataclasses.replace(QUICK, freeze=k, weight_decay=0.1))
    assert all(modes == [False] * (3 + k) + [True] * (3 - k) for modes in during)
    for name, value in model.state_dict().items():
        of_frozen = name.startswith(tuple(f"backbone.{layer}." for layer in layers))
        assert torch.equal(value, before[name]) == of_frozen, name
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_running_average_leaves_frozen_stages_alone_too():
    model = net()
    before = state_of(model)
    fit(model, striped_images(), both_branches, dataclasses.replace(QUICK, freeze=2, ema=0.4))
    for name, value in model.state_dict().items():
        if name.startswith(tuple(f"backbone.{layer}." for layer in range(5))):
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_gradients_are_given_back_after_an_error_and_what_had_none_stays_without(error):
    model = net()
    model.backbone[0].weight.requires_grad_(False)
    model.head.classification.bias.requires_grad_(False)

    def stop(*_):
        assert not any(
            parameter.requires_grad for layer in list(model.backbone)[:4] for parameter in layer.parameters()
        )
        raise error

    with pytest.raises(error):
        fit(model, striped_images(), both_branches, dataclasses.replace(QUICK, freeze=1), watch=Watch(on_epoch=stop))
    without = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert without == {"backbone.0.weight", "head.classification.bias"}


def test_more_stages_than_there_are_and_networks_without_stages_are_refused_before_anything_changes():
    model = net()
    with pytest.raises(ValueError, match="freeze is 4: this network has 3 stages, choose 0 to 3"):
        fit(model, striped_images(), both_branches, dataclasses.replace(QUICK, freeze=4))
    assert same_weights(model, net())
    with pytest.raises(ValueError, match="freeze is -1: expected at least 0"):
        TrainingConfig(freeze=-1)
    with pytest.raises(ValueError, match="freeze is 1, but a Linear has no backbone with stages: set freeze to 0"):
        with frozen(nn.Linear(2, 2), 1):
            pass
    stageless = DualBranchNet(Backbone(nn.Conv2d(3, 4, 3), out_channels=4, stride=1), 3, embedding=8)
    with pytest.raises(ValueError, match="freeze is 1: this network has 0 stages"):
        fit(stageless, striped_images(), both_branches, dataclasses.replace(QUICK, freeze=1))


def test_a_frozen_training_that_was_stopped_goes_on_to_the_same_network(tmp_path):
    from udlib.training import Saving

    config = dataclasses.replace(QUICK, freeze=1, head_lr=0.03, optimizer="adamw")
    whole, pieces = net(), net()
    fit(whole, striped_images(), both_branches, config)

    def stop(epoch, *_):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(pieces, striped_images(), both_branches, config, watch=Watch(on_epoch=stop), saving=Saving(tmp_path))
    again = net(seed=5)
    fit(again, striped_images(), both_branches, config, saving=Saving(tmp_path))
    assert same_weights(whole, again)


def test_the_last_convolution_of_a_lite_network_learns_even_when_all_stages_are_frozen():
    torch.manual_seed(0)
    model = DualBranchNet(backbone("efficientnet_lite0"), 3, embedding=8)
    before = copy.deepcopy(model.state_dict())
    data = striped_images(8, size=32)
    config = dataclasses.replace(QUICK, epochs=1, batch_size=8, freeze=7, schedule="constant")
    fit(model, data, both_branches, config)
    changed = {
        name.split(".")[1]
        for name, value in model.backbone.state_dict(prefix="backbone.").items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"9", "10"}, "conv_head and its batch normalisation"
