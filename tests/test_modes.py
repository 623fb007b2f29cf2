"""Evaluation mode inside the block, and every part in its own mode after it."""

import pytest
from torch import nn

from udlib.modes import evaluating


def network():
    """A network in training mode with one frozen part."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    net.train()
    net[1][1].eval()
    return net


def modes(net):
    return [part.training for part in net.modules()]


def test_all_parts_are_in_evaluation_mode_inside_and_in_their_own_mode_afterwards():
    net = network()
    with evaluating(net) as same:
        assert same is net and modes(net) == [False] * 5
    assert modes(net) == [True, True, True, True, False]


def test_modes_are_restored_after_an_error():
    net = network()
    with pytest.raises(RuntimeError, match="inside"), evaluating(net):
        raise RuntimeError("inside")
    assert modes(net) == [True, True, True, True, False]
