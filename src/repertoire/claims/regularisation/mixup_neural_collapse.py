"""The claim of *Pushing Boundaries: Mixup's Influence on Neural Collapse* (2024)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import perceptron
from repertoire.claims.beds import _named
from repertoire.claims.beds.digits import hidden_features, share_right
from repertoire.claims.beds.frozen import descend, shuffled, table_rows
from repertoire.claims.beds.learned import must_have_learned
from repertoire.claims.beds.raw import raw_accuracy_of_rows
from repertoire.diagnostics import mixed_layout


@claim(
    "mixup-neural-collapse",
    statement=(
        "Features of mixed images deviate more from the blend of their two class means when mixup is trained with "
        "cross-entropy than when it is trained with the squared error."
    ),
    metric="distance of mixed features from the blend, relative to that of the class means",
    method="mixup with cross-entropy",
    baseline="mixup with the squared error",
    data="Fashion-MNIST, 3,000 photographs, a network with two hidden layers",
    bed="fashion-mnist",
    threshold=0.05,
    guard="all three networks must be more accurate than nearest means and neighbours of the pixels",
)
def mixed_features(budget: Budget, seed: int) -> Measured:
    """Fisher, Meng and Papyan, *Pushing Boundaries: Mixup's Influence on Neural Collapse* (2024), whose data is
    Fashion-MNIST among others. `extra` has the accuracies, and the deviation without mixup."""
    splits = _named.get("fashion-mnist").splits(budget, seed)
    rows = table_rows(splits).to(budget.device)
    count = budget.pick(smoke=500, small=3000, full=60_000)
    x, y = rows.x[:count], rows.y[:count]
    epochs = budget.pick(smoke=1, small=40, full=200)
    floor = raw_accuracy_of_rows(rows._replace(x=x, y=y))
    found, extra = {}, {"raw pixels": floor}
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "cross-entropy": F.cross_entropy,
        "squared error": F.mse_loss,
    }
    for name, loss in losses.items():
        network = _mixed_up(seed, x, y, loss, epochs)
        found[name] = _deviation(network, x, y, seed)
        right = extra[f"test accuracy, {name}"] = share_right(network, rows.test_x, rows.test_y)
        must_have_learned(budget, right, floor, f"the network trained with {name}")
    plain = _mixed_up(seed, x, y, F.cross_entropy, epochs, mixed=False)
    must_have_learned(budget, share_right(plain, rows.test_x, rows.test_y), floor, "the network without mixup")
    extra["deviation without mixup"] = _deviation(plain, x, y, seed)
    return Measured(found["cross-entropy"], found["squared error"], extra)


def _mixed_up(
    seed: int, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor], epochs: int, *, mixed: bool = True
) -> nn.Module:
    torch.manual_seed(seed)
    network = perceptron(x.shape[1], 10, 256).to(x.device)
    targets = F.one_hot(y, 10).float()

    def objective(index: Tensor) -> Tensor:
        if not mixed:
            return loss(network(x[index]), targets[index])
        other, share = index[torch.randperm(len(index))], torch.rand(len(index), 1, device=x.device)
        blend = share * targets[index] + (1 - share) * targets[other]
        return loss(network(share * x[index] + (1 - share) * x[other]), blend)

    descend(network.parameters(), objective, shuffled(len(x)), epochs=epochs, rate=1e-3)
    return network.eval()


def _deviation(network: nn.Module, x: Tensor, y: Tensor, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randint(len(x), (4000,), generator=generator).to(x.device) for _ in range(2))
    differ = y[first] != y[second]
    first, second = first[differ], second[differ]
    share = torch.rand(len(first), generator=generator).to(x.device)
    h = hidden_features(network, x)
    means = torch.stack([h[y == k].mean(0) for k in range(10)])
    mixed = hidden_features(network, share[:, None] * x[first] + (1 - share[:, None]) * x[second])
    assert isinstance(network, nn.Sequential)
    weight = network[-1].weight
    assert isinstance(weight, Tensor)
    return mixed_layout(mixed, share, y[first], y[second], means, weight.detach()).deviation
