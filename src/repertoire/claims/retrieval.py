"""Claims of papers on retrieval."""

from __future__ import annotations

import torch
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import (
    fit_embedding,
    fit_tensors,
    perceptron,
    recall_at_one,
    rotated_digits,
    several_digits,
)
from repertoire.data import load


def _shared_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    """One softmax over all labels, in which those of a sample compete with each other."""
    return -(targets * logits.log_softmax(1)).sum(1).mean()


@claim(
    "dexml",
    statement=(
        "A network trained with the decoupled softmax ranks the labels of an image further above the others than one "
        "trained with a single softmax over all labels."
    ),
    metric="label ranking average precision on test images",
    method="decoupled softmax",
    baseline="one softmax",
    data="scenes of one to four digits",
    threshold=0.0,
)
def dexml(budget: Budget, seed: int) -> Measured:
    """Gupta et al., *Dual-Encoders for Extreme Multi-Label Classification* (2024): the loss, on a small classifier."""
    splits = load("digits", seed=seed)
    inputs, targets = several_digits(splits.train, budget.pick(smoke=300, small=3000, full=30_000), seed)
    test_inputs, test_targets = several_digits(splits.test, 1000, seed + 1)
    found = []
    for loss in (losses.DecoupledSoftmax(), _shared_softmax):
        torch.manual_seed(seed)
        network = perceptron(inputs.shape[1], 10)
        fit_tensors(network, inputs, targets, loss, epochs=budget.pick(smoke=1, small=30, full=60))
        with torch.no_grad():
            scores = network(test_inputs).numpy()
        found.append(float(label_ranking_average_precision_score(test_targets.numpy(), scores)))
    decoupled, shared = found
    return Measured(decoupled, shared)


def _places(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Turned digits: rows and classes of six digits' training images, and of the other four digits' test images."""
    splits = load("digits", seed=seed)
    known = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:6]
    parts = []
    for images, keep_known in ((splits.train, True), (splits.test, False)):
        rows, digits, turns = rotated_digits(images)
        kept = torch.isin(digits, known) == keep_known
        parts += [rows[kept], (4 * digits + turns)[kept]]
    inputs, labels, test_inputs, test_labels = parts
    return inputs, labels, test_inputs, test_labels


@claim(
    "gsv-cities",
    statement=(
        "The multi-similarity loss with its pair mining makes better embeddings of unseen classes than the "
        "contrastive loss with margins."
    ),
    metric="recall at 1 among test images of 16 unseen classes",
    method="multi-similarity",
    baseline="contrastive loss",
    data="40 classes: digits in four turns; those of four digits are unseen",
    threshold=0.0,
)
def gsv_cities(budget: Budget, seed: int) -> Measured:
    """Ali-bey, Chaib-draa and Giguère, *GSV-Cities: Toward Appropriate Supervised Visual Place Recognition* (2022): the
    loss that served best there, in batches of four samples a class, on classes in place of places.

    `extra` has multi-similarity on all pairs, without mining.
    """
    inputs, labels, test_inputs, test_labels = _places(seed)
    epochs = budget.pick(smoke=1, small=20, full=100)
    found = [
        recall_at_one(
            fit_embedding(loss, inputs, labels, epochs=epochs, seed=seed, per_class=4), test_inputs, test_labels
        )
        for loss in (
            losses.MultiSimilarity(),
            losses.Contextual(contextual=0.0, regularisation=0.0),
            losses.MultiSimilarity(epsilon=None),
        )
    ]
    return Measured(found[0], found[1], {"without mining": found[2]})


@claim(
    "dimco",
    statement=(
        "Codes of 32 bits that were trained to tell the class retrieve images of unseen classes better than the signs "
        "of 32 features that were trained with cross-entropy."
    ),
    metric="mean average precision among test images of 16 unseen classes",
    method="DIMCO, 8 positions of 16 symbols",
    baseline="signs of 32 features about their medians, cross-entropy",
    data="40 classes: digits in four turns; those of four digits are unseen",
    threshold=0.0,
)
def dimco(budget: Budget, seed: int) -> Measured:
    """Lee et al., *Discrete Infomax Codes for Supervised Representation Learning* (2019).

    Codes are compared by how many positions agree. `extra` has the 32 features themselves, 1024 bits, by cosine.
    """
    inputs, labels, test_inputs, test_labels = _places(seed)
    epochs = budget.pick(smoke=1, small=20, full=100)
    encoder = fit_embedding(losses.DIMCO(symbols=16), inputs, labels, epochs=epochs, seed=seed, dimensions=128)
    torch.manual_seed(seed)
    features, classifier = perceptron(inputs.shape[1], 32), torch.nn.Linear(32, 40)
    whole = torch.nn.Sequential(features, classifier)
    fit_tensors(whole, inputs, labels, losses.CrossEntropy(), epochs=epochs, batch_size=128)
    with torch.no_grad():
        codes = losses.dimco_codes(encoder(test_inputs), symbols=16)
        plain = features(test_inputs)
        signs = plain > features(inputs).median(0).values
        z = torch.nn.functional.normalize(plain)
    precision = [
        _mean_average_precision(similarity, test_labels)
        for similarity in (
            (codes[:, None] == codes).sum(2).float(),
            (signs[:, None] == signs).sum(2).float(),
            z @ z.T,
        )
    ]
    return Measured(precision[0], precision[1], {"the features themselves": precision[2]})


def _mean_average_precision(similarity: Tensor, labels: Tensor) -> float:
    """Of the ranking of all other rows, for each row; rows of equal similarity are taken together."""
    others = ~torch.eye(len(labels), dtype=torch.bool)
    same = labels[:, None] == labels
    scores = [
        average_precision_score(same[row][others[row]].numpy(), similarity[row][others[row]].numpy())
        for row in range(len(labels))
    ]
    return float(sum(scores) / len(scores))
