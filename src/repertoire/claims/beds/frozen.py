"""Small networks on frozen features and on tables: claims about losses and heads, in seconds a seed.

Photographs are CIFAR-10 and drawings Omniglot, both as features of a network that was trained on other photographs;
what is trained is a head, or a body of two layers with 256 and 128 units under one, as the claim says. Their test rows
are the same for every seed, so that an interval speaks of these rows; a seed draws which rows are learned from, the
weights and the order. Where a claim gives its arms different learning rates, each has the one of 0.0003, 0.001, 0.003
(and 0.01, on photographs, genes and for number tokens) which did best on the validation rows of two or three pilot
seeds; where it gives them the same, it was not tuned for either or was best for both.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import heads, losses, registry
from repertoire.claims import Budget, arm
from repertoire.claims.beds import _named
from repertoire.data import FeatureSet, Samples, Splits
from repertoire.estimators import evaluate_episodes
from repertoire.methods import Method
from repertoire.metrics import retrieval
from repertoire.recipe import build, make_config, resolve
from repertoire.tasks import calibration
from repertoire.train import in_memory

DRAWINGS = "Omniglot, frozen features of a pretrained network: characters of five alphabets, and of three unseen ones"
UNSEEN = "Omniglot, frozen features of a pretrained network: characters of eight alphabets, every fourth of them unseen"

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


def splits_of(rows: Rows, source: str) -> Splits:
    """Rows with a class each as data that `repertoire.train` takes."""
    classes = tuple(str(number) for number in range(int(rows.y.max()) + 1))

    def part(x: Tensor, y: Tensor) -> FeatureSet:
        names = [str(number) for number in range(len(x))]
        return FeatureSet(x.cpu().numpy(), y.cpu().numpy(), names, classes, np.arange(len(x), dtype=np.uint64))

    parts = part(rows.x, rows.y), part(rows.val_x, rows.val_y), part(rows.test_x, rows.test_y)
    return Splits(*parts, source=source, augmentation="none")


def trained(splits: Splits, **fields: Any) -> Method:
    """A method trained on rows; `fields` are those of the training configuration. Two hidden layers of 256."""
    options: dict[str, Any] = {"backbone": "mlp:hidden=256", "augment": "none", "device": "cpu"}
    config = resolve(make_config(data=splits.source, **options | fields), splits)
    return in_memory(build(config, splits, device=config.device), validate=False).method.eval()


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
    """Number of epochs that makes about 640 steps, 20 at least."""
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


Unseen = Literal["alphabets", "characters"]
"""Which characters are kept for the test: those of three alphabets, or every fourth of each alphabet."""


@functools.lru_cache(maxsize=2)
def _drawings(budget: Budget, unseen: Unseen) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    splits = _named.features("omniglot-all", budget, 0)
    rows = table_rows(splits)
    x = torch.cat([rows.x, rows.val_x, rows.test_x])
    y = torch.cat([rows.y, rows.val_y, rows.test_y])
    alphabets = [name.split("/")[0] for name in splits.train.classes]
    last = set(sorted(set(alphabets))[-3:])
    kept_back = [name in last if unseen == "alphabets" else n % 4 == 3 for n, name in enumerate(alphabets)]
    unknown = torch.tensor(kept_back)[y]
    project = components_of(x[~unknown])
    return project(x[~unknown]), y[~unknown], project(x[unknown]), y[unknown]


def drawings(budget: Budget, seed: int, unseen: Unseen = "alphabets") -> Rows:
    """Features of drawn characters: two thirds of those that are not kept for the test, drawn by the seed and numbered
    anew, to learn from, the others to choose on, and all that are kept for it for the test."""
    x, y, test_x, test_y = _drawings(budget, unseen)
    present = y.unique()
    order = present[torch.randperm(len(present), generator=torch.Generator().manual_seed(seed))].tolist()
    cut = 2 * len(order) // 3
    return Rows(*renumbered(x, y, order[:cut]), *renumbered(x, y, order[cut:]), test_x, test_y).to(budget.device)


def groups(labels: Tensor, per_class: int = 4, classes: int = 32) -> Callable[[], Iterable[Tensor]]:
    """Batches of so many rows each of so many classes; what fills no group, and a last group that
    would be alone, waits for another epoch."""

    def batches() -> Iterable[Tensor]:
        order = torch.randperm(len(labels), device=labels.device)
        order = order[labels[order].argsort(stable=True)]
        ordered = labels[order]
        rank = torch.arange(len(order), device=labels.device) - torch.searchsorted(ordered, ordered)
        size = ordered.bincount()[ordered]
        kept = order[rank < size - size % per_class].view(-1, per_class)
        return [part.flatten() for part in kept[torch.randperm(len(kept))].split(classes) if len(part) > 1]

    return batches


def found_again(z: Tensor, labels: Tensor, nearness: Literal["cosine", "euclidean"]) -> dict[str, float]:
    """How well the nearest others of each row are of its class, and rows by the nearest mean of five others."""
    ranked = retrieval(z, labels, nearness=nearness)
    z = F.normalize(z) if nearness == "cosine" else z
    first = groups_of_five(labels)
    means = torch.stack([z[index].mean(0) for index in first])
    means = F.normalize(means) if nearness == "cosine" else means
    rest = torch.ones(len(z), dtype=torch.bool, device=z.device)
    rest[torch.cat(first)] = False
    guess = torch.cdist(z[rest], means).argmin(1)
    return {
        "recall at 1": ranked.recall[1],
        "MAP@R": ranked.map_at_r,
        "nearest mean of five": float((labels.unique()[guess] == labels[rest]).float().mean()),
    }


def groups_of_five(labels: Tensor) -> list[Tensor]:
    """The first five rows of each class."""
    return [(labels == c).nonzero().flatten()[:5] for c in labels.unique()]


@arm
def retrieved(
    budget: Budget,
    seed: int,
    *,
    loss: str = "cross-entropy",
    head: str = "",
    rate: float = 1e-3,
    noise: float = 0.0,
    nearness: Literal["cosine", "euclidean"] = "cosine",
    unseen: Unseen = "alphabets",
) -> dict[str, float]:
    """Retrieval among unseen characters, by an embedding of 64 trained with a loss on embeddings, or with
    a head and a loss on logits; and by the features as they are.

    Args:
        noise: share of the training labels that are drawn anew.
        nearness: by which the embedding is meant to be compared.
        unseen: which characters are kept for the test.
    """
    rows = drawings(budget, seed, unseen)
    generator = torch.Generator().manual_seed(seed)
    known = int(rows.y.max()) + 1
    wrong = (torch.rand(len(rows.y), generator=generator) < noise).to(rows.y.device)
    drawn = torch.randint(known, (len(rows.y),), generator=generator).to(rows.y.device)
    labels = torch.where(wrong, drawn, rows.y)
    torch.manual_seed(seed)
    network = embedder(rows.x.shape[1]).to(rows.x.device).train()
    criterion: losses.Loss = registry.build("losses", loss)
    parts: list[nn.Module] = [network, criterion]
    if head:
        classifier: heads.Head = registry.build("heads", head, in_features=64, num_classes=known).to(rows.x.device)
        parts.append(classifier.train())
    else:
        criterion.prepare(64)

    def objective(index: Tensor) -> Tensor:
        z = network(rows.x[index])
        if head:
            return criterion(classifier(z, labels[index]), labels[index])
        return criterion(z, labels[index])

    descend(
        [parameter for part in parts for parameter in part.parameters()],
        objective,
        groups(labels),
        epochs=budget.pick(smoke=1, small=40, full=200),
        rate=rate,
        after=criterion.after_update,
    )
    with torch.no_grad():
        found = found_again(network.eval()(rows.test_x), rows.test_y, nearness)
        chosen = found_again(network(rows.val_x), rows.val_y, nearness)["MAP@R"]
        plain = found_again(rows.test_x, rows.test_y, "cosine")
    return {**found, "validation": chosen, **{f"untrained: {name}": value for name, value in plain.items()}}


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


def thinned(rows: Rows, seed: int, share: float = 0.8) -> Rows:
    """The rows with a share of those to learn from, drawn by the seed; those of the test stay what they are."""
    order = torch.randperm(len(rows.x), generator=torch.Generator().manual_seed(seed))
    kept = order[: max(1, round(share * len(rows.x)))]
    return rows._replace(x=rows.x[kept], y=rows.y[kept])


def genes(budget: Budget, seed: int) -> Rows:
    """Genes with several functions each; targets are float `[N, 14]`. Those of the test are the same for every seed."""
    rows = thinned(table_rows(_named.get("yeast").splits(budget, 0)), seed)
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


def patches(budget: Budget, seed: int) -> Rows:
    """Patches of ground: the near infrared of the middle pixel from all bands of the eight round it; numbers have a
    mean of 0 and a deviation of 1. Those of the test are the same for every seed."""
    rows = thinned(table_rows(_named.get("landsat").splits(budget, 0)), seed)
    middle = range(16, 20)
    inputs = [column for column in range(rows.x.shape[1]) if column not in middle]

    def number(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, inputs], x[:, 19]

    return Rows(*number(rows.x), *number(rows.val_x), *number(rows.test_x)).to(budget.device)


def predictor(
    rows: Rows, loss: Callable[[Tensor, Tensor], Tensor], outputs: int, seed: int, epochs: int, rate: float
) -> nn.Module:
    """A network with so many outputs, trained on rows with a loss."""
    torch.manual_seed(seed)
    return fitted(rows, loss, nn.Sequential(body(rows.x.shape[1]), nn.Linear(128, outputs)), epochs=epochs, rate=rate)


@functools.lru_cache(maxsize=1)
def questions(budget: Budget, seed: int) -> tuple[Rows, tuple[str, ...]]:
    """Questions to a bank, of 77 intents, as the principal directions of their hashed words; and what the intents are
    called. The seed draws those to learn from and to choose on; those of the test are always the same."""
    splits = _named.get("intents").splits(budget, seed)
    rows = table_rows(splits)
    count = min(COMPONENTS, rows.x.shape[1])
    directions = TruncatedSVD(count, random_state=0).fit(torch.cat([rows.x, rows.val_x]).numpy())
    scale = count**0.5
    x, val_x, test_x = (
        torch.from_numpy(directions.transform(part.numpy())).float() * scale
        for part in (rows.x, rows.val_x, rows.test_x)
    )
    return rows._replace(x=x, val_x=val_x, test_x=test_x), splits.train.classes


def embedder(inputs: int) -> nn.Sequential:
    """A network with one hidden layer and an embedding of 64."""
    return nn.Sequential(nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 64))


def embedded(
    criterion: losses.EmbeddingLoss, x: Tensor, y: Tensor, *, seed: int, epochs: int, rate: float
) -> nn.Sequential:
    """An embedding of rows, trained with a loss on embeddings and labels on batches of 128."""
    torch.manual_seed(seed)
    network = embedder(x.shape[1]).to(x.device).train()
    criterion.prepare(64)
    criterion.to(x.device)

    def objective(index: Tensor) -> Tensor:
        more = {"index": index} if "index" in criterion.wants else {}
        return criterion(network(x[index]), y[index], **more)

    batches = shuffled(len(x), 128)
    descend(network.parameters(), objective, batches, epochs=epochs, rate=rate, after=criterion.after_update)
    return network.eval()


Episode = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Queries and their labels, support and its labels, to a loss."""


def prototypical(x: Tensor, y: Tensor, support: Tensor, support_y: Tensor) -> Tensor:
    """Snell, Swersky and Zemel, *Prototypical Networks for Few-shot Learning* (2017)."""
    members = F.one_hot(support_y).to(support)
    prototypes = members.T @ support / members.sum(0)[:, None]
    return F.cross_entropy(-torch.cdist(x, prototypes).square(), y)


def episodic(rows: Rows, objective: Episode, *, seed: int, steps: int, rate: float, ways: int = 20) -> nn.Sequential:
    """An embedding trained episode by episode, of so many classes with five examples and five queries each."""
    torch.manual_seed(seed)
    network = embedder(rows.x.shape[1]).to(rows.x.device).train()
    members = [(rows.y == c).nonzero().flatten() for c in rows.y.unique()]
    ways = min(ways, len(members))
    y = torch.arange(ways, device=rows.x.device).repeat_interleave(5)

    def episodes() -> Iterable[Tensor]:
        for _ in range(10):
            chosen = torch.randperm(len(members))[:ways].tolist()
            yield torch.stack([members[c][torch.randperm(len(members[c]))[:10]] for c in chosen]).flatten()

    def loss(index: Tensor) -> Tensor:
        z = network(rows.x[index]).view(ways, 10, -1)
        return objective(z[:, 5:].flatten(0, 1), y, z[:, :5].flatten(0, 1), y)

    descend(network.parameters(), loss, episodes, epochs=max(1, steps // 10), rate=rate)
    return network.eval()


def few_shot(
    budget: Budget, z: Tensor, labels: Tensor, estimator: object, seed: int, *, ways: int = 20, shots: int = 1
) -> float:
    """Mean accuracy of an estimator over episodes of unseen classes."""
    scores = evaluate_episodes(
        z.cpu().numpy(),
        labels.cpu().numpy(),
        estimator,
        ways=min(ways, len(labels.unique())),
        shots=shots,
        queries=10,
        count=budget.pick(smoke=5, small=60, full=600),
        seed=seed,
    )
    return scores.mean
