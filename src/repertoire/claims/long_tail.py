"""Claims of papers on long tails: classes and numbers of which some are rare."""

from __future__ import annotations

import math

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_embedding, fit_tensors, perceptron, rotated_digits
from repertoire.data import ImageSet, load
from repertoire.losses import EmbeddingLoss

BINS = 20


def _waves(numbers: Tensor, generator: torch.Generator) -> Tensor:
    """Sixteen noisy measurements of each number in [0, 1], float `[N, 16]`: sines and cosines of growing frequency."""
    angles = numbers[:, None] * (math.pi * torch.arange(1, 9) / 2)
    clean = torch.cat([angles.sin(), angles.cos()], 1)
    return clean + 0.5 * torch.randn(clean.shape, generator=generator)


@claim(
    "classification-helps-regression",
    statement=(
        "Where some numbers are rare in training and not in the test, cross-entropy on bins beside the squared error "
        "makes the error smaller."
    ),
    metric="mean squared error on test samples in which all numbers are equally common",
    method="squared error and cross-entropy on 20 bins, its weight chosen on validation samples",
    baseline="squared error",
    data="numbers from 16 noisy measurements; density of the numbers falls twentyfold over their range",
    threshold=0.0,
    higher_is_better=False,
    seeds={"small": 10, "full": 10},
)
def classification_helps_regression(budget: Budget, seed: int) -> Measured:
    """Pintea et al., *A step towards understanding why classification helps regression* (2023).

    `extra` has the same with training numbers that are equally common, where the paper expects little.
    """
    generator = torch.Generator().manual_seed(seed)
    count = budget.pick(smoke=200, small=1000, full=20_000)
    uniform = torch.rand(count, generator=generator)
    # The density of these falls exponentially, from 1 to 1/20 of it.
    skewed = -torch.log1p(-uniform * (1 - 1 / 20)) / math.log(20)
    validation, test = torch.rand(2, 1000, generator=generator)
    validation_inputs, test_inputs = _waves(validation, generator), _waves(test, generator)
    epochs = budget.pick(smoke=1, small=40, full=100)

    def errors(numbers: Tensor) -> tuple[float, float]:
        """Test errors with and without the classification."""
        inputs = _waves(numbers, generator)
        mean, deviation = numbers.mean(), numbers.std()
        targets = (numbers - mean) / deviation
        edges = losses.bin_edges(targets, BINS)

        def fit(scale: float) -> tuple[float, float]:
            torch.manual_seed(seed)
            network = perceptron(inputs.shape[1], 1 + BINS, width=64)
            fit_tensors(network, inputs, targets, losses.RegressionWithClasses(edges, scale), epochs=epochs)

            def error(x: Tensor, y: Tensor) -> float:
                with torch.no_grad():
                    return float((network(x)[:, 0] * deviation + mean - y).square().mean())

            return error(validation_inputs, validation), error(test_inputs, test)

        tried = [fit(scale) for scale in budget.pick(smoke=(1.0,), small=(0.1, 1.0, 10.0), full=(0.1, 1.0, 10.0))]
        return min(tried)[1], fit(0.0)[1]

    ours, plain = errors(skewed)
    common = dict(zip(("all equally common: with", "all equally common: without"), errors(uniform), strict=True))
    return Measured(ours, plain, common)


@claim(
    "sbcl",
    statement=(
        "Where frequent classes are mixtures and others are rare, contrast between clusters of the frequent classes "
        "beside that between classes makes a linear read-out more accurate than the supervised contrastive loss does."
    ),
    metric="mean of the classes' test accuracies, by a linear probe",
    method="subclass-balancing contrastive loss",
    baseline="supervised contrastive loss",
    data="digits: five of them in four turns, 60 images each, and five upright, 15 images each",
    threshold=0.0,
)
def sbcl(budget: Budget, seed: int) -> Measured:
    """Hou et al., *Subclass-balancing Contrastive Learning for Long-tailed Recognition* (2023), on single views.
    Clusters are made from a quarter of the epochs on, and made anew each eighth.

    `extra` has the mean accuracy of the rare classes alone.
    """
    splits = load("digits", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    frequent = torch.randperm(10, generator=generator)[:5]

    def mixture(images: ImageSet, each: int, rare: int) -> tuple[Tensor, Tensor]:
        rows, digits, turns = rotated_digits(images)
        kept = []
        for digit in range(10):
            for turn in range(4 if digit in frequent else 1):
                members = ((digits == digit) & (turns == turn)).nonzero().flatten()
                count = each if digit in frequent else rare
                kept.append(members[torch.randperm(len(members), generator=generator)[:count]])
        index = torch.cat(kept)
        return rows[index], digits[index]

    rows, labels = mixture(splits.train, 60, 15)
    test_rows, test_labels = mixture(splits.test, 10_000, 10_000)
    epochs = budget.pick(smoke=1, small=40, full=200)

    def scores(loss: EmbeddingLoss) -> tuple[float, float]:
        network = fit_embedding(loss, rows, labels, epochs=epochs, seed=seed)
        with torch.no_grad():
            features, queries = network(rows).numpy(), network(test_rows).numpy()
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        right = torch.from_numpy(classifier.fit(features, labels.numpy()).predict(queries)) == test_labels
        each = [float(right[test_labels == c].float().mean()) for c in range(10)]
        rare = [score for c, score in enumerate(each) if c not in frequent]
        return sum(each) / 10, sum(rare) / len(rare)

    clustered = losses.SubclassContrastive(
        samples=len(rows), warmup=max(1, epochs // 4), every=max(1, epochs // 8), smallest=15
    )
    (found, rare), (plain, plain_rare) = scores(clustered), scores(losses.SupCon())
    return Measured(found, plain, {"rare classes: SBCL": rare, "rare classes: supcon": plain_rare})
