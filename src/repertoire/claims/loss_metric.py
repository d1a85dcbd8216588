"""Claims of papers on metric and supervised contrastive losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from repertoire import heads, losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, fit_tensors, perceptron, pixels, probe_accuracy, train
from repertoire.data import load


@claim(
    "supcon",
    statement=(
        "A linear read-out of features trained with the supervised contrastive loss is more accurate than the same "
        "network trained with cross-entropy on equally many augmented images."
    ),
    metric="test accuracy",
    method="supervised contrastive loss, linear read-out",
    baseline="cross-entropy",
    data="shapes: 8 classes, 32 pixels",
    threshold=0.0,
)
def supcon(budget: Budget, seed: int) -> Measured:
    """Khosla et al., *Supervised Contrastive Learning* (2020): cross-entropy against L_out.

    The contrastive loss sees two views of each image, so cross-entropy trains for twice the epochs. Two drafts of the
    small budget were dropped before any evidence was kept, on a seed that is not among its seeds: ten epochs, after
    which neither had learned, and the crops of SimCLR, which at 32 pixels often cut the shape away altogether.
    """
    count = budget.pick(smoke=300, small=2000, full=50_000)
    splits = load(f"shapes:count={count},classes=8", size=32, seed=seed)
    epochs = budget.pick(smoke=1, small=25, full=100)
    options = {
        "backbone": budget.pick(smoke="convnet:width=8", small="convnet:width=8", full="resnet32"),
        "augment": "crop-flip",
        "seed": seed,
        "device": budget.device,
    }
    contrastive = train(splits, loss="supcon", epochs=epochs, **options)
    plain = train(splits, loss="cross-entropy", epochs=2 * epochs, **options)
    return Measured(
        method=probe_accuracy(contrastive, splits),
        baseline=accuracy(plain, splits.test),
        extra={"cross-entropy, linear read-out": probe_accuracy(plain, splits)},
    )


def _digits_split(seed: int, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Digits as rows and labels, for training and for the test, and so many classes drawn to be known at first."""
    splits = load("digits", seed=seed)
    known = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:classes]
    return (*pixels(splits.train), *pixels(splits.test), known)


def _embedding(head: heads.Head, inputs: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """A perceptron with 64 features, trained with cross-entropy on what a head makes of them."""
    network = perceptron(inputs.shape[1], head.in_features)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=1e-3)

    def loss(features: Tensor, targets: Tensor) -> Tensor:
        return losses.cross_entropy(head(features, targets), targets)

    return fit_tensors(network, inputs, labels, loss, epochs=epochs, optimizer=optimizer)


def _unit(network: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return nn.functional.normalize(network(inputs))


@claim(
    "hyperspherical-novel",
    statement=(
        "Features trained with the normalised softmax tell classes apart that they never saw better than those trained "
        "with an ordinary one."
    ),
    metric="accuracy among three unseen classes, by the nearest mean of five references each",
    method="normalised softmax",
    baseline="softmax",
    data="digits, of which seven classes are seen",
    threshold=0.0,
    seeds={"small": 10, "full": 10},
)
def hyperspherical_novel(budget: Budget, seed: int) -> Measured:
    """Pereira et al., *Hyperspherical Embedding for Novel Class Classification* (2021)."""
    inputs, labels, test_inputs, test_labels, known = _digits_split(seed, 7)
    seen, unseen = torch.isin(labels, known), ~torch.isin(test_labels, known)
    novel = test_labels[unseen].unique()
    references = torch.cat([(labels == label).nonzero().flatten()[:5] for label in novel.tolist()])

    def found(kind: type[heads.Head]) -> float:
        torch.manual_seed(seed)
        epochs = budget.pick(smoke=1, small=40, full=100)
        network = _embedding(kind(64, 10), inputs[seen], labels[seen], epochs)
        means = _unit(network, inputs[references]).view(len(novel), 5, -1).mean(1)
        guess = (_unit(network, test_inputs[unseen]) @ nn.functional.normalize(means).T).argmax(1)
        return float((novel[guess] == test_labels[unseen]).float().mean())

    return Measured(found(heads.NormalizedSoftmax), found(heads.Linear))


def _mean_average_precision(embeddings: Tensor, labels: Tensor) -> float:
    """Of the ranking of all other rows by cosine, for each row."""
    similarities = (embeddings @ embeddings.T).fill_diagonal_(-2.0)
    order = similarities.argsort(1, descending=True)[:, :-1]
    right = (labels[order] == labels[:, None]).double()
    precision = right.cumsum(1) / torch.arange(1, right.shape[1] + 1)
    return float(((precision * right).sum(1) / right.sum(1).clamp_min(1)).mean())


@claim(
    "cfcd",
    statement=(
        "A scale and a margin that follow the batch make a better embedding for the retrieval of unseen classes than "
        "the fixed ones of ArcFace, without tuning."
    ),
    metric="mean average precision among images of three unseen classes",
    method="MadaCos",
    baseline="ArcFace with scale 64 and margin 0.5",
    data="digits, of which seven classes are seen",
    threshold=0.0,
    seeds={"small": 10, "full": 10},
)
def cfcd(budget: Budget, seed: int) -> Measured:
    """Zhu et al., *Coarse-to-Fine: Learning Compact Discriminative Representation* (2023): the loss of its first stage.

    `extra` has CosFace with the constants of its paper, and a plain cosine classifier.
    """
    inputs, labels, test_inputs, test_labels, known = _digits_split(seed, 7)
    seen, unseen = torch.isin(labels, known), ~torch.isin(test_labels, known)

    def found(kind: type[heads.Head]) -> float:
        torch.manual_seed(seed)
        epochs = budget.pick(smoke=1, small=40, full=100)
        network = _embedding(kind(64, 10), inputs[seen], labels[seen], epochs)
        return _mean_average_precision(_unit(network, test_inputs[unseen]), test_labels[unseen])

    others = {"CosFace": found(heads.CosFace), "cosine classifier": found(heads.Cosine)}
    return Measured(found(heads.MadaCos), found(heads.ArcFace), others)


@claim(
    "d-simplex-compatibility",
    statement=(
        "Features of a network trained anew on more classes find the right images in a gallery of the old network's "
        "features more often if both had the same fixed simplex for a classifier than if each trained its own."
    ),
    metric="test accuracy of the nearest neighbour, new queries in an old gallery",
    method="fixed simplex",
    baseline="trained classifier",
    data="digits: five classes, then ten",
    threshold=0.0,
)
def d_simplex(budget: Budget, seed: int) -> Measured:
    """Biondi et al., *Stationary Representations: Optimally Approximating Compatibility* (2024): its cross-entropy.

    `extra` has the accuracies of the old and the new network alone: an upgrade pays if the cross test exceeds the old.
    """
    inputs, labels, test_inputs, test_labels, known = _digits_split(seed, 5)
    old = torch.isin(labels, known)
    epochs = budget.pick(smoke=1, small=40, full=100)

    def right(queries: nn.Module, gallery: nn.Module) -> float:
        nearest = (_unit(queries, test_inputs) @ _unit(gallery, inputs).T).argmax(1)
        return float((labels[nearest] == test_labels).float().mean())

    def tests(fresh: Callable[[], heads.Head]) -> tuple[float, float, float]:
        torch.manual_seed(seed)
        before = _embedding(fresh(), inputs[old], labels[old], epochs)
        torch.manual_seed(seed + 1000)
        after = _embedding(fresh(), inputs, labels, epochs)
        return right(after, before), right(before, before), right(after, after)

    # As in the paper the softmax runs over all corners, used or not.
    cross, alone, new = tests(lambda: heads.Simplex(64, 65))
    plain_cross, plain_alone, plain_new = tests(lambda: heads.Linear(64, 10))
    extra = {"simplex: old": alone, "simplex: new": new, "trained: old": plain_alone, "trained: new": plain_new}
    return Measured(cross, plain_cross, extra)
