"""Functions refuse what their modules refuse: values that give a number and mean nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import (
    balanced_softmax_loss,
    ldam_loss,
    logit_adjusted_loss,
    metrix_loss,
    regression_with_classes_loss,
)

LOGITS, TARGETS = torch.zeros(3, 3), torch.tensor([0, 1, 2])


@pytest.mark.parametrize("loss", [logit_adjusted_loss, balanced_softmax_loss, ldam_loss])
@pytest.mark.parametrize("least", [0.0, -4.0])
def test_counts_of_classes_are_positive(loss: Callable[..., Tensor], least: float):
    with pytest.raises((ConfigError, ShapeError), match="counts"):
        loss(LOGITS, TARGETS, torch.tensor([5.0, 3.0, least]))


def test_edges_of_classes_rise():
    with pytest.raises((ConfigError, ShapeError), match="edges"):
        regression_with_classes_loss(torch.zeros(3, 4), torch.rand(3), edges=torch.tensor([0.5, 0.1]))


def test_shares_of_a_mixture_lie_between_nothing_and_all():
    x = torch.eye(4)
    pair = torch.tensor([0, 1]), torch.tensor([2, 3])
    with pytest.raises((ConfigError, ShapeError), match="share"):
        metrix_loss(x, torch.tensor([0, 0, 1, 1]), x[:2], *pair, torch.tensor([0.5, 3.0]))
