"""Claims of papers on losses that compare embeddings with each other, or with what was seen before.

Most use digits turned by 0, 90, 180 and 270 degrees, which makes 40 classes. Where classes are to be unseen, a digit is
unseen in all its turns, and the perceptron is trained on the classes of the other digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repertoire import heads, losses
from repertoire.claims import Budget
from repertoire.claims._training import fit_embedding, fit_tensors, perceptron, pixels, recall_at_one
from repertoire.claims.beds.digits import rotated_digits
from repertoire.data import ImageSet, load
from repertoire.losses import EmbeddingLoss


def digits_split(seed: int, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Digits as rows and labels, for training and for the test, and so many classes drawn to be known at first."""
    splits = load("digits", seed=seed)
    known = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:classes]
    return (*pixels(splits.train), *pixels(splits.test), known)


def fitted_embedding(head: heads.Head, inputs: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """A perceptron with 64 features, trained with cross-entropy on what a head makes of them."""
    network = perceptron(inputs.shape[1], head.in_features)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=1e-3)

    def loss(features: Tensor, targets: Tensor) -> Tensor:
        return losses.cross_entropy(head(features, targets), targets)

    return fit_tensors(network, inputs, labels, loss, epochs=epochs, optimizer=optimizer)


def unit_rows(network: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return nn.functional.normalize(network(inputs))


UNSEEN = "40 classes: digits in four turns; those of four digits are unseen"


RECALL = "recall at 1 among test images of 16 unseen classes"


def unseen_recall(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows and classes of six digits' training images and of the other four digits' test images."""
    splits = load("digits", seed=seed)
    known = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:6]
    parts = []
    for images, keep_known in ((splits.train, True), (splits.test, False)):
        rows, digits, turns = rotated_digits(images)
        kept = torch.isin(digits, known) == keep_known
        parts += [rows[kept], (4 * digits + turns)[kept]]
    inputs, labels, test_inputs, test_labels = parts
    return inputs, labels, test_inputs, test_labels


def retrieval_recall(seed: int, budget: Budget, *kinds: Callable[[], EmbeddingLoss], **options: Any) -> list[float]:
    """Recall at 1 on unseen classes of a network trained with each loss."""
    inputs, labels, test_inputs, test_labels = unseen_recall(seed)
    epochs = budget.pick(smoke=1, small=20, full=100)
    return [
        recall_at_one(
            fit_embedding(kind(), inputs, labels, epochs=epochs, seed=seed, **options), test_inputs, test_labels
        )
        for kind in kinds
    ]


def thinned_out(images: ImageSet, seed: int, counts: list[int]) -> ImageSet:
    """So many images of each class, drawn at random; the classes are put in a random order first."""
    generator = np.random.default_rng(seed)
    kept = []
    for label, count in zip(generator.permutation(len(counts)), counts, strict=True):
        members = np.flatnonzero(images.labels == label)
        kept.append(generator.choice(members, min(count, len(members)), replace=False))
    return images.subset(np.sort(np.concatenate(kept)))
