"""The claim of *In Defense of the Triplet Loss for Person Re-Identification* (2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import perceptron
from repertoire.claims.beds.digits import rotated_digits
from repertoire.data import load
from repertoire.losses import Triplet


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
