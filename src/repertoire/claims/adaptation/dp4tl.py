"""The claim of *Selectivity Drives Productivity: Efficient Dataset Pruning for Enhanced Transfer Learning* (2023)."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import perceptron, probe
from repertoire.claims.beds import _named
from repertoire.claims.beds.digits import hidden_features
from repertoire.claims.beds.frozen import Rows, descend, groups_of_five, renumbered, shuffled, table_rows
from repertoire.claims.beds.raw import raw_accuracy_of_rows
from repertoire.select import label_mapping

KEPT = 0.4


@functools.lru_cache(maxsize=1)
def alphabets(budget: Budget) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels and classes of five alphabets, the source, and of three others, the target."""
    splits = _named.get("omniglot-all").splits(budget, 0)
    rows = table_rows(splits)
    x, y = torch.cat([rows.x, rows.val_x, rows.test_x]), torch.cat([rows.y, rows.val_y, rows.test_y])
    names = [name.split("/")[0] for name in splits.train.classes]
    target = set(sorted(set(names))[-3:])
    other = torch.tensor([name in target for name in names])[y]
    return (*_numbered(x[~other], y[~other]), *_numbered(x[other], y[other]))


def _numbered(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return renumbered(x, y, y.unique().tolist())


def pretrained(x: Tensor, y: Tensor, classes: Tensor, width: int, steps: int, seed: int) -> nn.Module:
    """A perceptron trained to tell these source classes apart, in so many steps however many they are."""
    kept = torch.isin(y, classes)
    x, y = renumbered(x[kept], y[kept], classes.tolist())
    torch.manual_seed(seed)
    network = perceptron(x.shape[1], len(classes), width).to(x.device)

    def objective(index: Tensor) -> Tensor:
        return F.cross_entropy(network(x[index]), y[index])

    epochs = max(1, round(steps / -(-len(x) // 64)))
    descend(network.parameters(), objective, shuffled(len(x)), epochs=epochs, rate=1e-3)
    return network.eval()


def _divided(v: Tensor) -> tuple[Tensor, Tensor]:
    """Images of the target that a probe is fitted to, and which others there are."""
    first = torch.cat(groups_of_five(v))
    rest = torch.ones(len(v), dtype=torch.bool, device=v.device)
    rest[first] = False
    return first, rest


def raw(budget: Budget, seed: int) -> float:
    """What the five images of each class tell by their pixels, which is the same for all seeds."""
    _, _, u, v = alphabets(budget)
    first, rest = _divided(v)
    return raw_accuracy_of_rows(Rows(u[first], v[first], u[:0], v[:0], u[rest], v[rest]))


@claim(
    "dp4tl",
    statement=(
        "A network pretrained on the two fifths of the source classes that label mapping chooses gives a linear probe "
        "of the target that is no more than a percentage point less accurate than one behind a network pretrained on "
        "all source classes for as many steps."
    ),
    metric="target accuracy of a linear probe fitted to five images a class",
    method="two fifths of the classes, by label mapping",
    baseline="all source classes, as many steps",
    data="Omniglot: characters of five alphabets as the source, of three others as the target",
    bed="omniglot-all",
    threshold=-0.01,
    strict=False,
    floor=raw,
    learned=0.05,
)
def source_classes(budget: Budget, seed: int) -> Measured:
    """Zhang et al., *Selectivity Drives Productivity: Efficient Dataset Pruning for Enhanced Transfer Learning* (2023),
    which keeps 20 to 60 % of a source without loss. The surrogate sees the target's images for the probe, and no label
    of theirs.

    `extra` has as many classes at random, and features of random weights.
    """
    x, y, u, v = (part.to(budget.device) for part in alphabets(budget))
    first, rest = _divided(v)
    steps = budget.pick(smoke=10, small=1200, full=10_000)
    every = y.unique()
    surrogate = pretrained(x, y, every, 64, steps // 2, seed)
    with torch.no_grad():
        chosen = label_mapping(surrogate(u[first])).keep(KEPT)
    random = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[: len(chosen)]]

    def score(network: nn.Module) -> float:
        z, target = hidden_features(network, u).cpu().numpy(), v.cpu().numpy()
        few, others = first.cpu().numpy(), rest.cpu().numpy()
        return probe(z[few], target[few], z[others], target[others])

    def after(classes: Tensor) -> float:
        return score(pretrained(x, y, classes, 256, steps, seed))

    torch.manual_seed(seed)
    untrained = score(perceptron(x.shape[1], len(every), 256).to(x.device))
    return Measured(after(chosen), after(every), {"two fifths at random": after(random), "random weights": untrained})
