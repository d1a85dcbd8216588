"""Claims of papers on what is made of a batch: which of its triplets count, and how large it may be."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import perceptron, pixels, rotated_digits
from repertoire.data import load
from repertoire.losses import Triplet, nt_xent_loss
from repertoire.rules import cached_backward


def _unseen_turns(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Turned digits as rows and classes: six digits' training images, and the other four digits' test images."""
    splits = load("digits", seed=seed)
    known = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:6]
    parts = []
    for images, wanted in ((splits.train, True), (splits.test, False)):
        rows, digits, turns = rotated_digits(images)
        kept = torch.isin(digits, known) == wanted
        parts += [rows[kept], (4 * digits + turns)[kept]]
    inputs, labels, test_inputs, test_labels = parts
    return inputs, labels, test_inputs, test_labels


def _groups_of(labels: Tensor, per_class: int) -> Tensor:
    """Indices `[G, per_class]` of samples of one class each, in random order."""
    order = torch.randperm(len(labels))
    order = order[labels[order].argsort(stable=True)]
    ordered = labels[order]
    rank = torch.arange(len(order)) - torch.searchsorted(ordered, ordered)
    size = torch.bincount(ordered)[ordered]
    # The samples that fill no group are left for another epoch.
    order = order[rank < size - size % per_class]
    groups = order.view(-1, per_class)
    return groups[torch.randperm(len(groups))]


@torch.no_grad()
def _mean_average_precision(z: Tensor, labels: Tensor, *, cosine: bool) -> float:
    """Of the ranking of all other rows by their nearness to each row."""
    distances = -(F.normalize(z) @ F.normalize(z).T) if cosine else torch.cdist(z, z)
    order = distances.fill_diagonal_(torch.inf).argsort(1)[:, :-1]
    right = (labels[order] == labels[:, None]).float()
    precision = right.cumsum(1) / torch.arange(1, right.shape[1] + 1)
    return float(((precision * right).sum(1) / right.sum(1).clamp_min(1)).mean())


@claim(
    "batch-hard-triplet",
    statement=(
        "A network trained with the batch-hard triplet loss ranks images of unseen classes better than the features of "
        "the same network trained to classify."
    ),
    metric="mean average precision among test images of 16 unseen classes",
    method="batch-hard triplets, soft margin",
    baseline="softmax cross-entropy",
    data="40 classes: digits in four turns; those of four digits are unseen",
    threshold=0.0,
)
def batch_hard_triplet(budget: Budget, seed: int) -> Measured:
    """Hermans et al. (2017): P classes and K of each in a batch, the hardest triplet of each anchor, soft margin.

    Both train the same perceptron for as many batches of 16 classes with 4 images each. Classification adds a linear
    layer and is ranked by cosines, which suit it; triplets by the Euclidean distance that they were trained on.
    """
    inputs, labels, test_inputs, test_labels = _unseen_turns(seed)
    epochs = budget.pick(smoke=1, small=40, full=200)
    names, labels = labels.unique(return_inverse=True)

    def trained(loss: nn.Module | None) -> nn.Module:
        torch.manual_seed(seed)
        network, classifier = perceptron(inputs.shape[1], 32), nn.Linear(32, len(names))
        optimizer = torch.optim.Adam([*network.parameters(), *classifier.parameters()], lr=1e-3)
        network.train()
        for _ in range(epochs):
            for groups in _groups_of(labels, 4).split(16):
                index = groups.flatten()
                z = network(inputs[index])
                optimizer.zero_grad()
                value = F.cross_entropy(classifier(z), labels[index]) if loss is None else loss(z, labels[index])
                value.backward()
                optimizer.step()
        return network.eval()

    networks = [trained(loss) for loss in (Triplet(), None, Triplet("batch-all", margin=0.2, nonzero=True))]
    with torch.no_grad():
        hard, softmax, everything = (network(test_inputs) for network in networks)
    return Measured(
        method=_mean_average_precision(hard, test_labels, cosine=False),
        baseline=_mean_average_precision(softmax, test_labels, cosine=True),
        extra={"batch-all triplets": _mean_average_precision(everything, test_labels, cosine=False)},
    )


@claim(
    "gradcache",
    statement=(
        "With the activations of 16 images in memory, contrastive training on cached gradients of batches of 256 makes "
        "better features than accumulating gradients of batches of 16."
    ),
    metric="accuracy of the nearest training image on test images",
    method="GradCache: batches of 256 in chunks of 16",
    baseline="gradient accumulation: 16 batches of 16 a step",
    data="digits, two noisy views of each",
    threshold=0.0,
)
def gradcache(budget: Budget, seed: int) -> Measured:
    """Gao et al. (2021): both see the same images in the same steps; they differ in what each is contrasted with.

    The paper's rows *Accumulation* and *Cache* for passage retrieval, here with NT-Xent on images. Views are shifted by
    up to a pixel and noisy. The extra value is the training on whole batches without a cache, which the cache equals.
    """
    splits = load("digits", seed=seed)
    (inputs, labels), (test_inputs, test_labels) = pixels(splits.train), pixels(splits.test)
    steps = budget.pick(smoke=2, small=150, full=2000)
    size, chunk = 256, 16

    def view(rows: Tensor) -> Tensor:
        square = F.pad(rows.view(-1, 1, 8, 8), (1, 1, 1, 1))
        grid = F.affine_grid(torch.eye(2, 3).expand(len(rows), 2, 3).clone(), [len(rows), 1, 8, 8], align_corners=False)
        # In a padded square of 10 pixels a shift by one is a fifth of its half width, and the 8 in the middle are 0.8.
        shift = torch.randint(-1, 2, (len(rows), 1, 1, 2)) * 0.2
        moved = F.grid_sample(square, grid * 0.8 + shift, align_corners=False).flatten(1)
        return moved + 0.3 * torch.randn_like(moved)

    def trained(kind: str) -> nn.Module:
        torch.manual_seed(seed)
        network = perceptron(inputs.shape[1], 32)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        network.train()
        for _ in range(steps):
            index = torch.randperm(len(inputs))[:size]
            views = view(inputs[index]), view(inputs[index])
            optimizer.zero_grad()
            if kind == "cache":
                cached_backward(network, views, lambda *z: nt_xent_loss(*z, temperature=0.2), chunk=chunk)
            else:
                length = size if kind == "whole" else chunk
                for pieces in zip(*(v.split(length) for v in views), strict=True):
                    loss = nt_xent_loss(*(network(piece) for piece in pieces), temperature=0.2)
                    (loss * length / size).backward()
            optimizer.step()
        return network.eval()

    def score(network: nn.Module) -> float:
        with torch.no_grad():
            z, w = F.normalize(network(inputs)), F.normalize(network(test_inputs))
        return float((labels[(w @ z.T).argmax(1)] == test_labels).float().mean())

    return Measured(
        method=score(trained("cache")),
        baseline=score(trained("accumulation")),
        extra={"whole batches": score(trained("whole"))},
    )
