from __future__ import annotations

import pytest
from torch import nn

from repertoire.ops import evaluating, keeping_modes


class Stubborn(nn.Module):
    """A network that freezes its normalisation whatever mode it is put in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.drop = nn.Dropout()

    def train(self, mode: bool = True) -> Stubborn:
        super().train(mode)
        self.norm.eval()
        return self


def modes(*modules: nn.Module) -> list[bool]:
    return [each.training for module in modules for each in module.modules()]


def test_each_submodule_gets_back_the_mode_it_had():
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2).eval(), nn.ReLU()))
    other = nn.Dropout().eval()
    before = modes(net, other)
    assert sorted(set(before)) == [False, True]
    with evaluating(net, other):
        assert not any(modes(net, other))
    assert modes(net, other) == before


def test_also_where_the_block_raises_or_changes_modes():
    net = Stubborn()
    before = modes(net)

    def trained_and_stopped() -> None:
        with evaluating(net):
            net.train()
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        trained_and_stopped()
    assert modes(net) == before
    net.norm.training = True  # which its own train() would not give back
    with evaluating(net):
        assert not net.norm.training
    assert net.norm.training


def test_modes_of_a_model_in_evaluation_stay():
    net = nn.Sequential(nn.Dropout()).eval()
    with keeping_modes(net):
        net.train()
    assert modes(net) == [False, False]
