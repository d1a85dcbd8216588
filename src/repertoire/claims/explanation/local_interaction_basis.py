"""The claim of *The Local Interaction Basis: Identifying Computationally-Relevant and Sparsely Interacting Features in
Neural Networks* (2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.explain import Basis, interaction_edges, local_interaction_basis


def _sums(modulus: int) -> tuple[Tensor, Tensor]:
    """All pairs of numbers as two ones in `[modulus ** 2, 2 * modulus]`, and their sums."""
    a, b = (part.flatten() for part in torch.meshgrid(torch.arange(modulus), torch.arange(modulus), indexing="ij"))
    return torch.cat([F.one_hot(a, modulus), F.one_hot(b, modulus)], 1).float(), (a + b) % modulus


def _accuracy_of_few(net: nn.Sequential, inputs: Tensor, targets: Tensor, bases: Sequence[Basis]) -> float:
    """Mean accuracy when a hidden layer is left with its first 1, 2, 4, ... directions; of layers and numbers."""
    found = []
    with torch.no_grad():
        for number in range(1, len(net)):
            f = net[:number](inputs)
            for count in (2**i for i in range(16) if 2**i <= f.shape[1]):
                y = net[number:](bases[number].kept(f.double(), count).float())
                found.append((y.argmax(1) == targets).float().mean())
    return float(torch.stack(found).mean())


def _edges_for(edges: Sequence[Tensor], share: float = 0.9) -> float:
    """The share of edges, mean over the layers, that hold so much of a layer's total weight."""
    kept = []
    for layer in edges:
        values = layer.flatten().sort(descending=True).values
        enough = int((values.cumsum(0) < share * values.sum()).sum()) + 1
        kept.append(enough / len(values))
    return sum(kept) / len(kept)


def _random_bases(net: nn.Sequential, inputs: Tensor, seed: int) -> list[Basis]:
    """For each layer, orthogonal directions that are drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    bases = []
    with torch.no_grad():
        for number in range(len(net)):
            f = net[:number](inputs).double()
            turn, _ = torch.linalg.qr(torch.randn(f.shape[1], f.shape[1], generator=generator, dtype=torch.float64))
            bases.append(Basis(f.mean(0), turn.T, turn, torch.ones(f.shape[1])))
    return bases


@claim(
    "local-interaction-basis",
    statement=(
        "A network that adds modulo a prime keeps more of its accuracy with a few directions of the local interaction "
        "basis in a hidden layer than with as many principal components."
    ),
    metric="accuracy with 1, 2, 4, ... directions left in one hidden layer, mean over these and layers",
    method="local interaction basis",
    baseline="principal components",
    data="all sums modulo 23",
    threshold=0.01,
    learned=0.1,
    guard="as many directions that are drawn at random",
)
def interaction_basis(budget: Budget, seed: int) -> Measured:
    """Bushnaq et al., *The Local Interaction Basis: Identifying Computationally-Relevant and Sparsely Interacting
    Features in Neural Networks* (2024).

    In `extra`, the share of the interactions that hold nine tenths of their total, in either basis: fewer is sparser.
    """
    inputs, targets = _sums(budget.pick(smoke=7, small=23, full=59))
    width = budget.pick(smoke=16, small=64, full=256)
    net = nn.Sequential(
        nn.Linear(inputs.shape[1], width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, inputs.shape[1] // 2),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(budget.pick(smoke=20, small=1500, full=10_000)):
        optimizer.zero_grad()
        F.cross_entropy(net(inputs), targets).backward()
        optimizer.step()
    accuracies, extra = {}, {}
    for name in ("lib", "pca"):
        bases = local_interaction_basis(net, inputs, method=name)
        accuracies[name] = _accuracy_of_few(net, inputs, targets, bases)
        extra[f"{name}, share of edges"] = _edges_for(interaction_edges(net, bases, inputs))
    extra["accuracy"] = float((net(inputs).argmax(1) == targets).float().mean())
    random = _accuracy_of_few(net, inputs, targets, _random_bases(net, inputs, seed))
    return Measured(accuracies["lib"], accuracies["pca"], extra, trivial=random)
