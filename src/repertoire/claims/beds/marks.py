"""Handwritten digits beside eight coloured marks, which agree with the digit in training and do not in the test.

The digits are real, the marks are drawn: the theory is about several spurious cues whose strength is known. A mark has
one of ten colours. In an environment, each of some marks has the colour of the digit with a probability, and any other
has a random one. The test images are the same for every seed; a seed draws the marks, the weights and the order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget
from repertoire.claims._training import perceptron
from repertoire.claims.beds.experts import rows_of
from repertoire.claims.beds.frozen import descend, shuffled

__all__ = ["MARKS", "TITLE", "Objective", "environment", "fitted", "marked", "mixed", "plain", "smoothed"]

TITLE = "handwritten digits of MNIST at 14 pixels beside eight drawn coloured marks"

MARKS = 8
COUNT = 500
"""Digits to learn from."""

Rows = tuple[Tensor, Tensor]


def marked(x: Tensor, y: Tensor, chances: Sequence[float], seed: int) -> Tensor:
    """Rows of digits, each with eight marks of three colour channels; `chances` that each is of the digit's colour."""
    generator = torch.Generator().manual_seed(seed)
    palette = torch.rand(MARKS, 10, 3, generator=torch.Generator().manual_seed(0))  # the same for every environment
    agrees = torch.rand(len(y), MARKS, generator=generator) < torch.tensor(chances)
    drawn = torch.randint(10, (len(y), MARKS), generator=generator)
    colours = torch.where(agrees, y.cpu()[:, None], drawn)
    marks = palette[torch.arange(MARKS), colours].flatten(1)
    return torch.cat([x, marks.to(x)], 1)


def environment(
    budget: Budget,
    chances: Sequence[float],
    seed: int,
    part: str = "train",
    contrast: float = 1.0,
    brightness: float = 1.0,
) -> Rows:
    """Digits of one part with their marks.

    Args:
        chances: that each mark is of the digit's colour.
        seed: of the marks.
        part: "train", of which the first 500 are taken, or "test".
        contrast: factor of the digits.
        brightness: factor of the marks.
    """
    rows = rows_of(budget, "digits")
    x, y = (rows.x[:COUNT], rows.y[:COUNT]) if part == "train" else (rows.test_x, rows.test_y)
    factors = torch.tensor([contrast] * x.shape[1] + [brightness] * 3 * MARKS).to(x)
    return marked(x, y, chances, seed) * factors, y


Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]


def plain(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(network(x), y)


def smoothed(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Label smoothing of 0.2."""
    return F.cross_entropy(network(x), y, label_smoothing=0.2)


def mixed(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mixup: the images of a batch are mixed with those of the same batch in another order, and so are the labels."""
    share = float(torch.distributions.Beta(1.0, 1.0).sample())
    order = torch.randperm(len(x), device=x.device)
    logits = network(share * x + (1 - share) * x[order])
    return share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[order])


def fitted(
    budget: Budget,
    seed: int,
    rows: Rows,
    objective: Objective = plain,
    start: nn.Module | None = None,
    epochs: int = 10,
    rate: float = 1e-3,
) -> nn.Module:
    """A network with two hidden layers, from random weights or from those of another."""
    x, y = rows
    torch.manual_seed(seed)
    network = (perceptron(x.shape[1], 10) if start is None else copy.deepcopy(start)).to(x.device).train()

    def loss(index: Tensor) -> Tensor:
        return objective(network, x[index], y[index])

    epochs = budget.pick(smoke=1, small=epochs, full=2 * epochs)
    descend(network.parameters(), loss, shuffled(len(x)), epochs=epochs, rate=rate)
    return network.eval()
