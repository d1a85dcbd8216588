"""The claims of *Learning with Local Gradients at the Edge* (2022)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.frozen import Rows
from repertoire.claims.beds.handwriting import DIGITS, GARMENTS, SIDE, drawn_rows
from repertoire.claims.beds.raw import raw_accuracy_of_rows
from repertoire.local import LocalLearning, RecurrentTargetProjection

Kind = Literal["perceptron", "convolutional", "recurrent"]
Part = tuple[Tensor, Tensor]


def _shallow(kind: str, width: int) -> nn.Module:
    """A shallow network on digits of 14 pixels, given as rows of 196 numbers."""
    if kind == "perceptron":
        return nn.Sequential(
            nn.Linear(SIDE**2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10)
        )
    return nn.Sequential(
        nn.Unflatten(1, (1, SIDE, SIDE)),
        nn.Conv2d(1, width // 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width // 8, width // 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(7),
        nn.Flatten(),
        nn.Linear(width, 10),
    )


class _Rows(nn.Module):
    """A recurrent network that reads an image row by row, and classifies by its last hidden state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(SIDE, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.recurrent(rows.unflatten(1, (SIDE, SIDE)))[0][:, -1])


def _fit_steps(
    step: Callable[[Tensor, Tensor], object], inputs: Tensor, labels: Tensor, epochs: int, batch_size: int
) -> None:
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).to(inputs.device).split(batch_size):
            step(inputs[rows], labels[rows])


def _seen(budget: Budget, seed: int, kind: Kind) -> tuple[Part, Part]:
    """Training and test images: garments for perceptrons, of which more are needed, and digits for the others."""
    if kind == "perceptron":
        return drawn_rows(budget, seed, budget.pick(smoke=160, small=3000, full=8000), bed="fashion-mnist")
    return drawn_rows(budget, seed, budget.pick(smoke=160, small=1500, full=3500))


def _by_pixels(budget: Budget, seed: int, kind: Kind = "convolutional") -> float:
    """Test accuracy by raw pixels."""
    (x, y), (test_x, test_y) = _seen(budget, seed, kind)
    return raw_accuracy_of_rows(Rows(x, y, x[:0], y[:0], test_x, test_y))


def _by_pixels_of_garments(budget: Budget, seed: int) -> float:
    return _by_pixels(budget, seed, "perceptron")


@arm
def by_rule(budget: Budget, seed: int, *, rule: str, kind: Kind) -> dict[str, float]:
    """Test accuracy of one kind of network, trained by one rule; optimiser and order are the same for all."""
    device = budget.device
    width, epochs = budget.pick(smoke=(32, 1), small=(128, 20), full=(512, 60))
    (inputs, labels), (test_inputs, test_labels) = _seen(budget, seed, kind)
    torch.manual_seed(seed)
    network = (_Rows(width) if kind == "recurrent" else _shallow(kind, width)).to(device).train()

    def adam(module: nn.Module, rate: float = 3e-3) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), lr=rate)

    if rule == "backprop":
        optimizer = adam(network)

        def step(x: Tensor, y: Tensor) -> None:
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()

    elif isinstance(network, _Rows):
        recurrent = RecurrentTargetProjection(network.recurrent, network.head, adam)

        def step(x: Tensor, y: Tensor) -> None:
            recurrent.step(x.unflatten(1, (SIDE, SIDE)), y)

    else:
        frozen = rule == "last layer"
        distance = "direct" if rule == "direct" else "l2"
        learner = LocalLearning(
            network,
            "all",
            f"target-projection:distance={distance}",
            # The last block has the only layer of ten outputs; a rate of zero leaves the others as they were drawn.
            lambda block: adam(block, 0.0 if frozen and not _gives_classes(block) else 3e-3),
            example=inputs[:2],
        )

        def step(x: Tensor, y: Tensor) -> None:
            learner.step(x, y)

    torch.manual_seed(seed)
    _fit_steps(step, inputs, labels, epochs, batch_size=32)
    with torch.no_grad():
        right = (network.eval()(test_inputs).argmax(1) == test_labels).float()
    return {"accuracy": float(right.mean())}


def _gives_classes(block: nn.Module) -> bool:
    return any(isinstance(m, nn.Linear) and m.out_features == 10 for m in block.modules())


_claim = functools.partial(
    claim,
    "tpsgd",
    metric="test accuracy",
    method="target projection SGD",
    threshold=-0.05,
    learned=0.01,
    learned_by="best",
    guard="neighbours and means of raw pixels (only back-propagation has to, as what a rule loses is the claim)",
)


@_claim(
    statement=(
        "On a convolutional network of three layers, target projection SGD is no more than five points less accurate "
        "than back-propagation."
    ),
    baseline="back-propagation",
    bed="mnist5k",
    data=DIGITS,
    floor=_by_pixels,
)
def convolutional(budget: Budget, seed: int) -> Measured:
    """Lomnitz et al., *Learning with Local Gradients at the Edge* (2022). Every layer has a target of its own, the head
    learns with cross-entropy, and no gradient passes between layers."""
    return _compared(budget, seed, "convolutional")


@_claim(
    part="perceptron",
    statement=(
        "On a perceptron of three layers, target projection SGD is no more than five points less accurate than "
        "back-propagation."
    ),
    baseline="back-propagation",
    bed="fashion-mnist",
    data=GARMENTS,
    floor=_by_pixels_of_garments,
)
def perceptron(budget: Budget, seed: int) -> Measured:
    """Lomnitz et al. (2022). `extra` has direct random target projection, and hidden layers left as they were drawn.

    Until it was given garments, the perceptron that back-propagation trained was below the nearest neighbours of
    digits, 0.91; of garments it has 0.842 on a pilot seed, and neighbours 0.806.
    """
    extra = {
        name: by_rule(budget, seed, rule=rule, kind="perceptron")["accuracy"]
        for rule, name in (("direct", "direct random target projection"), ("last layer", "only the last layer trained"))
    }
    return _compared(budget, seed, "perceptron", extra)


@_claim(
    part="recurrent",
    statement=(
        "On a recurrent network that reads an image row by row, target projection SGD is no more than five points less "
        "accurate than back-propagation through time."
    ),
    baseline="back-propagation through time",
    bed="mnist5k",
    data=DIGITS,
    floor=_by_pixels,
)
def recurrent(budget: Budget, seed: int) -> Measured:
    """Lomnitz et al. (2022). No gradient passes between time steps; the rule is the reading of the paper that makes its
    statement on memory true."""
    return _compared(budget, seed, "recurrent")


def _compared(budget: Budget, seed: int, kind: Kind, extra: dict[str, float] | None = None) -> Measured:
    ours, theirs = (by_rule(budget, seed, rule=rule, kind=kind) for rule in ("tpsgd", "backprop"))
    return Measured(ours["accuracy"], theirs["accuracy"], extra or {})
