"""The claim of *Learning with Local Gradients at the Edge* (2022)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import pixels
from repertoire.data import load
from repertoire.local import LocalLearning, RecurrentTargetProjection


def _shallow(kind: str, width: int) -> nn.Module:
    """A shallow network on digits of 8 pixels, given as rows of 64 numbers."""
    if kind == "perceptron":
        return nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10))
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, width // 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width // 8, width // 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(width, 10),
    )


class _Rows(nn.Module):
    """A recurrent network that reads an image row by row, and classifies by its last hidden state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(8, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.recurrent(rows.unflatten(1, (8, 8)))[0][:, -1])


def _fit_steps(
    step: Callable[[Tensor, Tensor], object], inputs: Tensor, labels: Tensor, epochs: int, batch_size: int
) -> None:
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).to(inputs.device).split(batch_size):
            step(inputs[rows], labels[rows])


def _digits_by(rule: str, kind: str, budget: Budget, seed: int) -> float:
    """Test accuracy on digits of one kind of network, trained by one rule; optimiser and order are the same for all."""
    device = budget.device
    width, epochs = budget.pick(smoke=(32, 1), small=(128, 15), full=(512, 60))
    splits = load("digits", seed=seed)
    count = budget.pick(smoke=160, small=len(splits.train), full=len(splits.train))
    inputs, labels = (part[:count].to(device) for part in pixels(splits.train))
    test_inputs, test_labels = (part.to(device) for part in pixels(splits.test))
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
            recurrent.step(x.unflatten(1, (8, 8)), y)

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
        return float((network.eval()(test_inputs).argmax(1) == test_labels).float().mean())


def _gives_classes(block: nn.Module) -> bool:
    return any(isinstance(m, nn.Linear) and m.out_features == 10 for m in block.modules())


@claim(
    "tpsgd",
    statement=(
        "On a perceptron, a convolutional and a recurrent network of two or three layers, target projection SGD is no "
        "more than five points less accurate than back-propagation, wherever it falls furthest behind."
    ),
    metric="test accuracy, of the kind of network where target projection falls furthest behind",
    method="target projection SGD",
    baseline="back-propagation",
    data="digits, 8 pixels",
    threshold=-0.05,
)
def tpsgd(budget: Budget, seed: int) -> Measured:
    """Lomnitz et al., *Learning with Local Gradients at the Edge* (2022). Every layer has a target of its own, the head
    learns with cross-entropy, and no gradient passes between layers or time steps. On the perceptron, `extra` has
    direct random target projection, and hidden layers left as they were drawn."""
    kinds = ("perceptron", "convolutional", "recurrent")
    found = {(rule, kind): _digits_by(rule, kind, budget, seed) for rule in ("tpsgd", "backprop") for kind in kinds}
    worst = min(kinds, key=lambda kind: found["tpsgd", kind] - found["backprop", kind])
    extra = {f"{kind}: {rule}": value for (rule, kind), value in found.items()}
    for rule, name in (("direct", "direct random target projection"), ("last layer", "only the last layer trained")):
        extra[f"perceptron: {name}"] = _digits_by(rule, "perceptron", budget, seed)
    return Measured(found["tpsgd", worst], found["backprop", worst], extra)
