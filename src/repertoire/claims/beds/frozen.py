"""Small networks on frozen features and on tables: claims about losses and heads, in seconds a seed.

Photographs are CIFAR-10 and drawings Omniglot, both as features of a network that was trained on other photographs.
Test rows are the same for every seed; a seed draws which rows are learned from, the weights and the order. No loss is
judged at the learning rate of another: each arm has that of 0.0003, 0.001, 0.003 and 0.01 which did best on the
validation rows of the pilot seeds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from repertoire import heads, losses, registry
from repertoire.claims import Budget, arm
from repertoire.claims.beds import _named
from repertoire.data import Samples, Splits
from repertoire.tasks import calibration

COMPONENTS = 128
"""Principal components of the features that networks are given."""


class Rows(NamedTuple):
    """Rows and targets to learn from, to choose on, and to test on."""

    x: Tensor
    y: Tensor
    val_x: Tensor
    val_y: Tensor
    test_x: Tensor
    test_y: Tensor

    def to(self, device: str) -> Rows:
        return Rows(*(part.to(device) for part in self))


def tensors_of(samples: Samples) -> tuple[Tensor, Tensor]:
    """Inputs as float rows, and targets."""
    rows = samples.inputs(np.arange(len(samples))).reshape(len(samples), -1)
    scale = 255.0 if rows.dtype == np.uint8 else 1.0
    return torch.from_numpy(rows.astype(np.float32) / scale), torch.from_numpy(np.asarray(samples.labels))


def table_rows(splits: Splits) -> Rows:
    """The three parts of a table, as they are divided."""
    return Rows(*(part for samples in (splits.train, splits.val, splits.test) for part in tensors_of(samples)))


def components_of(x: Tensor, count: int = COMPONENTS) -> Callable[[Tensor], Tensor]:
    """Brings rows to the principal components of `x`, with a mean variance of 1."""
    mean = x.mean(0)
    centred = (x - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    basis = vectors[:, -count:].flip(1).float()
    scale = float(values[-count:].clamp_min(0).mean().sqrt()) or 1.0
    return lambda rows: (rows - mean) @ basis / scale


@functools.lru_cache(maxsize=2)
def _photographs(budget: Budget) -> Rows:
    """All rows to draw from, and the test rows, as principal components."""
    splits = _named.get("cifar10-lite0").splits(budget, 0)
    if splits.train.noun != "vector":  # images of the user's own
        splits = _named.features("cifar10-lite0", budget, 0)
    rows = table_rows(splits)
    project = components_of(torch.cat([rows.x, rows.val_x]))
    return Rows(project(rows.x), rows.y, project(rows.val_x), rows.val_y, project(rows.test_x), rows.test_y)


def photographs(budget: Budget, seed: int, counts: int | Iterable[int], classes: tuple[int, ...] = ()) -> Rows:
    """Features of photographs: so many of each class to learn from, drawn by the seed, and 50 of each to choose on.

    Args:
        counts: for all classes, or for each of them.
        classes: only these, which are then numbered from 0; all by default.
    """
    rows = _photographs(budget)
    x, y = torch.cat([rows.x, rows.val_x]), torch.cat([rows.y, rows.val_y])
    test_x, test_y = rows.test_x, rows.test_y
    if classes and budget.name != "smoke":
        (x, y), (test_x, test_y) = (renumbered(*part, classes) for part in ((x, y), (test_x, test_y)))
    known = int(y.max()) + 1
    wanted = [counts] * known if isinstance(counts, int) else list(counts)
    generator = torch.Generator().manual_seed(seed)
    seen, chosen = [], []
    for c in range(known):
        members = (y == c).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        held = min(50, len(members) // 4)
        chosen.append(members[:held])
        seen.append(members[held : held + wanted[c]])
    kept, val = torch.cat(seen), torch.cat(chosen)
    return Rows(x[kept], y[kept], x[val], y[val], test_x, test_y).to(budget.device)


def renumbered(x: Tensor, y: Tensor, classes: Iterable[int]) -> tuple[Tensor, Tensor]:
    """The rows of some classes, which are numbered in this order."""
    numbers = torch.full((int(y.max()) + 1,), -1)
    for number, c in enumerate(classes):
        numbers[c] = number
    kept = numbers[y] >= 0
    return x[kept], numbers[y[kept]]


def descend(
    parameters: Iterable[nn.Parameter],
    objective: Callable[[Tensor], Tensor],
    batches: Callable[[], Iterable[Tensor]],
    *,
    epochs: int,
    rate: float,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Adam with a learning rate that falls to zero along a cosine; `batches` gives the rows of an epoch's batches."""
    optimizer = torch.optim.Adam(list(parameters), lr=rate)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
        for index in batches():
            optimizer.zero_grad()
            objective(index).backward()
            optimizer.step()
            after()


def shuffled(count: int, batch_size: int = 64) -> Callable[[], Iterable[Tensor]]:
    """Batches of an epoch in random order; one that would hold a single row is left out."""
    return lambda: [part for part in torch.randperm(count).split(batch_size) if len(part) > 1]


def body(inputs: int, width: int = 256, outputs: int = 128) -> nn.Sequential:
    """A network with one hidden layer, whose outputs are features."""
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs), nn.ReLU())


def fitted(
    rows: Rows, loss: Callable[[Tensor, Tensor], Tensor], network: nn.Module, *, epochs: int, rate: float
) -> nn.Module:
    """The network, trained on rows with a loss of its outputs and the targets."""

    def objective(index: Tensor) -> Tensor:
        return loss(network(rows.x[index]), rows.y[index])

    network.to(rows.x.device).train()
    own = loss.parameters() if isinstance(loss, nn.Module) else ()
    descend([*network.parameters(), *own], objective, shuffled(len(rows.x)), epochs=epochs, rate=rate)
    return network.eval()


class Classifier(nn.Module):
    """Features and a head; called with rows, it gives logits."""

    def __init__(self, inputs: int, head: str, classes: int) -> None:
        super().__init__()
        self.body = body(inputs)
        self.head: heads.Head = registry.build("heads", head, in_features=128, num_classes=classes)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.body(rows))


def shares(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Accuracy, its mean over classes, top-5 accuracy, calibration error and log-likelihood."""
    right = (logits.argmax(1) == targets).float()
    each = [right[targets == c].mean() for c in targets.unique()]
    top = (logits.topk(min(5, logits.shape[1]), 1).indices == targets[:, None]).any(1)
    p = logits.double().softmax(1)
    return {
        "accuracy": float(right.mean()),
        "balanced accuracy": float(torch.stack(each).mean()),
        "top-5 accuracy": float(top.float().mean()),
        "calibration error": float(calibration(p.cpu().numpy(), targets.cpu().numpy())["ece"]),
        "log-likelihood": float(p.gather(1, targets[:, None]).clamp_min(1e-12).log().mean()),
    }


def epochs_for(budget: Budget, count: int) -> int:
    """As many epochs as make about 640 steps, and 20 at least."""
    return budget.pick(smoke=1, small=max(20, 40_000 // max(count, 1)), full=max(60, 120_000 // max(count, 1)))


@arm
def classified(
    budget: Budget,
    seed: int,
    *,
    loss: str = "cross-entropy",
    head: str = "linear",
    each: int = 400,
    classes: tuple[int, ...] = (),
    rate: float = 1e-3,
) -> dict[str, float]:
    """A network on features of photographs, trained on so many of each class."""
    rows = photographs(budget, seed, each, classes)
    known = int(rows.y.max()) + 1
    torch.manual_seed(seed)
    network = Classifier(rows.x.shape[1], head, known)
    objective: losses.LogitsLoss = registry.build("losses", loss)
    fitted(rows, objective, network, epochs=epochs_for(budget, len(rows.x)), rate=rate)
    counts = rows.test_y.bincount()
    with torch.no_grad():
        found = shares(network(rows.test_x), rows.test_y)
        chosen = shares(network(rows.val_x), rows.val_y)["accuracy"]
    return {**found, "validation accuracy": chosen, "majority": float(counts.max() / counts.sum())}


class Drawings(NamedTuple):
    """Drawings of characters to learn from, and of characters of alphabets that are never learned from."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor

    def to(self, device: str) -> Drawings:
        return Drawings(*(part.to(device) for part in self))


@functools.lru_cache(maxsize=1)
def _drawings(budget: Budget) -> Drawings:
    splits = _named.features("omniglot-all", budget, 0)
    rows = table_rows(splits)
    x = torch.cat([rows.x, rows.val_x, rows.test_x])
    y = torch.cat([rows.y, rows.val_y, rows.test_y])
    alphabets = [name.split("/")[0] for name in splits.train.classes]
    known = sorted(set(alphabets))
    unseen = set(known[-3:])
    unknown = torch.tensor([name in unseen for name in alphabets])[y]
    project = components_of(x[~unknown])
    return Drawings(project(x[~unknown]), y[~unknown], project(x[unknown]), y[unknown])


def drawings(budget: Budget, seed: int, share: float = 2 / 3) -> Drawings:
    """Features of drawn characters: a share of those of five alphabets, drawn by the seed and numbered anew, to learn
    from, and all of the other three alphabets."""
    found = _drawings(budget)
    present = found.y.unique()
    generator = torch.Generator().manual_seed(seed)
    kept = present[torch.randperm(len(present), generator=generator)[: max(2, round(share * len(present)))]]
    x, y = renumbered(found.x, found.y, kept.tolist())
    return Drawings(x, y, found.test_x, found.test_y).to(budget.device)


@functools.lru_cache(maxsize=1)
def _characters(budget: Budget) -> Rows:
    rows = table_rows(_named.features("omniglot-all", budget, 0))
    project = components_of(torch.cat([rows.x, rows.val_x]))
    return Rows(project(rows.x), rows.y, project(rows.val_x), rows.val_y, project(rows.test_x), rows.test_y)


def characters(budget: Budget, seed: int, each: int = 10) -> Rows:
    """Features of drawn characters, 242 classes, so many of each to learn from; others drew those of the test."""
    rows = _characters(budget)
    order = torch.randperm(len(rows.y), generator=torch.Generator().manual_seed(seed))
    order = order[rows.y[order].argsort(stable=True)]
    ordered = rows.y[order]
    kept = order[torch.arange(len(order)) - torch.searchsorted(ordered, ordered) < each]
    return rows._replace(x=rows.x[kept], y=rows.y[kept]).to(budget.device)


def mean_precision(scores: Tensor, targets: Tensor) -> float:
    """Mean average precision over the labels that some rows have and others have not."""
    told = (targets.sum(0) > 0) & (targets.sum(0) < len(targets))
    return float(
        average_precision_score(targets[:, told].cpu().numpy(), scores[:, told].cpu().numpy(), average="macro")
    )


def genes(budget: Budget, seed: int) -> Rows:
    """Genes with several functions each, divided by the seed; targets are float `[N, 14]`."""
    rows = table_rows(_named.get("yeast").splits(budget, seed))
    return rows._replace(y=rows.y.float(), val_y=rows.val_y.float(), test_y=rows.test_y.float()).to(budget.device)


def ranker(rows: Rows) -> nn.Module:
    """A network that gives a score for each label."""
    return nn.Sequential(body(rows.x.shape[1]), nn.Linear(128, rows.y.shape[1]))


def ranked_labels(
    rows: Rows, loss: Callable[[Tensor, Tensor], Tensor], seed: int, epochs: int, rate: float
) -> nn.Module:
    """A network trained to give the labels of each row high scores."""
    torch.manual_seed(seed)
    return fitted(rows, loss, ranker(rows), epochs=epochs, rate=rate)
