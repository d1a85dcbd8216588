"""The claims of *Harnessing Hard Mixed Samples with Decoupled Regularizer* (2022).

Small networks on frozen features of photographs, 50 of each class, whose features are mixed. Of the learning rates
0.0003 and 0.001, of alpha 0.2 and 1, and of eta 0.1, 1 and 3, each arm has what did best on the validation rows of four
pilot seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from repertoire import losses, registry
from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.frozen import Rows, body, descend, photographs, shares, shuffled
from repertoire.claims.beds.raw import raw_accuracy_of_rows
from repertoire.data import Batch
from repertoire.methods import mixup


def _both_named(network: Callable[[Tensor], Tensor], rows: Rows, seed: int) -> float:
    """Share of the even mixtures of two test rows of different classes whose two first answers are these classes."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rows.test_y), generator=generator).to(rows.test_y.device)
    differ = rows.test_y != rows.test_y[order]
    mixed = (rows.test_x + rows.test_x[order])[differ] / 2
    pairs = torch.stack([rows.test_y, rows.test_y[order]], 1)[differ].sort(1).values
    named = network(mixed).topk(2, 1).indices.sort(1).values
    return float((named == pairs).all(1).float().mean())


@arm
def mixed_rows(budget: Budget, seed: int, *, loss: str, rate: float, alpha: float) -> dict[str, float]:
    """A network on features that are mixed with each other; not where alpha is 0."""
    rows = photographs(budget, seed, 50)
    classes = int(max(rows.y.max(), rows.test_y.max())) + 1
    criterion: losses.Loss = registry.build("losses", loss)
    torch.manual_seed(seed)
    network = nn.Sequential(body(rows.x.shape[1]), nn.Linear(128, classes)).to(rows.x.device).train()

    def objective(index: Tensor) -> Tensor:
        batch = Batch((rows.x[index],), rows.y[index], index)
        if alpha:
            batch = mixup(batch, classes, alpha)
        return criterion(network(batch.images), batch.targets)

    epochs = budget.pick(smoke=1, small=30, full=200)
    descend(network.parameters(), objective, shuffled(len(rows.x)), epochs=epochs, rate=rate)
    with torch.no_grad():
        found = shares(network.eval()(rows.test_x), rows.test_y)
        both = _both_named(network, rows, seed)
    return {"accuracy": found["accuracy"], "both": both}


def raw(budget: Budget, seed: int) -> float:
    """What the features give as they come."""
    return raw_accuracy_of_rows(photographs(budget, seed, 50))


def nearest_means(budget: Budget, seed: int) -> float:
    """How often the two nearest class means of an even mixture are those of its classes."""
    rows = photographs(budget, seed, 50)
    means = torch.stack([rows.x[rows.y == c].mean(0) for c in range(int(rows.y.max()) + 1)])
    return _both_named(lambda x: -torch.cdist(x, means), rows, seed)


@claim(
    "decoupled-mixup",
    statement="Mixup with the decoupled terms gives a more accurate classifier than mixup.",
    metric="test accuracy",
    method="decoupled mixup",
    baseline="mixup",
    bed="cifar10-lite0",
    threshold=0.005,
    learned=0.0,
    floor=raw,
    ceiling=1.0,
)
def more_accurate(budget: Budget, seed: int) -> Measured:
    """Liu et al. (2022). `extra` has training without mixing."""
    ours = mixed_rows(budget, seed, loss="decoupled-mixup:eta=1", rate=1e-3, alpha=1.0)
    mixed = mixed_rows(budget, seed, loss="cross-entropy", rate=3e-4, alpha=0.2)
    plain = mixed_rows(budget, seed, loss="cross-entropy", rate=3e-4, alpha=0.0)
    extra = {"accuracy: not mixed": plain["accuracy"]}
    return Measured(ours["accuracy"], mixed["accuracy"], extra)


@claim(
    "decoupled-mixup",
    part="both-classes",
    statement=(
        "Of an even mixture of two classes, the two first answers are these classes more often where mixup was trained "
        "with the decoupled terms, everything else alike."
    ),
    metric="share of the mixtures whose two classes are the two first answers",
    method="decoupled mixup",
    baseline="mixup",
    bed="cifar10-lite0",
    threshold=0.01,
    learned=0.02,
    floor=nearest_means,
    guard="the two nearest class means of the features as they come",
    ceiling=1.0,
)
def both_classes(budget: Budget, seed: int) -> Measured:
    """Liu et al. (2022); by chance it is one pair of 45."""
    ours, mixed = (
        mixed_rows(budget, seed, loss=loss, rate=1e-3, alpha=1.0) for loss in ("decoupled-mixup:eta=1", "cross-entropy")
    )
    return Measured(ours["both"], mixed["both"])
