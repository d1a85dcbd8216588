"""Claims of papers on losses for classification."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from repertoire import heads, losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import (
    accuracy,
    embeddings,
    fit_tensors,
    perceptron,
    pixels,
    several_digits,
    train,
)
from repertoire.data import ImageSet, Splits, load
from repertoire.methods import Method
from repertoire.train import calibration, outputs


def _nearest_neighbour(method: Method, splits: Splits, width: int) -> float:
    """Test accuracy of the nearest neighbour by cosine in the first `width` coordinates."""

    def prefix(images: ImageSet) -> np.ndarray:
        features = embeddings(method, images)[:, :width]
        return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)

    neighbours = KNeighborsClassifier(1).fit(prefix(splits.train), splits.train.labels)
    return float(neighbours.score(prefix(splits.test), splits.test.labels))


@claim(
    "mrl",
    statement=(
        "The first eighth of the coordinates of an embedding trained with nested heads finds the right nearest "
        "neighbour more often than the first eighth of one trained with a single head."
    ),
    metric="1-nearest-neighbour test accuracy at one eighth of the width",
    method="Matryoshka heads",
    baseline="one head, truncated",
    data="shapes: 8 classes, 32 pixels",
    threshold=0.0,
)
def mrl(budget: Budget, seed: int) -> Measured:
    """Kusupati et al., *Matryoshka Representation Learning* (2022): 1-NN accuracy by embedding size.

    `extra` has a network trained for that one size, which the paper finds no better than the nested prefix.
    """
    count = budget.pick(smoke=300, small=2500, full=50_000)
    splits = load(f"shapes:count={count},classes=8", size=32, seed=seed)
    options = {
        "backbone": budget.pick(smoke="convnet:width=8", small="convnet:width=16", full="resnet32:width=32"),
        "augment": "crop-flip",
        "epochs": budget.pick(smoke=1, small=15, full=100),
        "seed": seed,
        "device": budget.device,
    }
    nested = train(splits, head="matryoshka", **options)
    plain = train(splits, head="linear", **options)
    full = plain.model.backbone.out_features
    eighth = full // 8
    separate = train(splits, head=f"matryoshka:sizes=({eighth})", **options)
    return Measured(
        method=_nearest_neighbour(nested, splits, eighth),
        baseline=_nearest_neighbour(plain, splits, eighth),
        extra={
            "trained for an eighth": _nearest_neighbour(separate, splits, eighth),
            "Matryoshka heads, full width": _nearest_neighbour(nested, splits, full),
            "one head, full width": _nearest_neighbour(plain, splits, full),
        },
    )


@claim(
    "squentropy",
    statement="Squentropy gives a more accurate classifier than cross-entropy with the same learning rate.",
    metric="test accuracy",
    method="squentropy",
    baseline="cross-entropy",
    data="digits, a quarter of the training images",
    threshold=0.0,
    seeds={"small": 10, "full": 10},
)
def squentropy(budget: Budget, seed: int) -> Measured:
    """Hui, Belkin and Wright, *Cut your Losses with Squentropy* (2023); it also claims better calibration: `extra`."""
    splits = load("digits", seed=seed)
    quarter = replace(splits, train=splits.train.subset(np.arange(0, len(splits.train), 4)))
    options = {
        "backbone": "convnet:width=16,depth=3",
        "epochs": budget.pick(smoke=3, small=40, full=100),
        "seed": seed,
        "device": budget.device,
    }
    accuracies, errors = {}, {}
    for loss in ("squentropy", "cross-entropy"):
        method = train(quarter, loss=loss, **options)
        accuracies[loss] = accuracy(method, quarter.test)
        result = outputs(method.model, quarter.test, device=budget.device)
        errors[f"{loss}: calibration error"] = calibration(result.probabilities, result.labels)["ece"]
    return Measured(accuracies["squentropy"], accuracies["cross-entropy"], errors)


@claim(
    "encouraging-loss",
    statement="The encouraging loss gives a more accurate classifier than cross-entropy.",
    metric="test accuracy",
    method="encouraging loss",
    baseline="cross-entropy",
    data="digits",
    threshold=0.0,
)
def encouraging(budget: Budget, seed: int) -> Measured:
    """Zhao et al., *Well-classified Examples are Underestimated in Classification with Deep Neural Networks* (2022)."""
    splits = load("digits", seed=seed)
    options = {
        "backbone": budget.pick(smoke="convnet:width=4,depth=2", small="convnet:width=8", full="convnet:width=32"),
        "epochs": budget.pick(smoke=1, small=20, full=100),
        "seed": seed,
        "device": budget.device,
    }
    ours, plain = (
        accuracy(train(splits, loss=loss, **options), splits.test) for loss in ("encouraging", "cross-entropy")
    )
    return Measured(method=ours, baseline=plain)


@claim(
    "ensloss",
    statement="A network that can overfit is more accurate on test images with EnsLoss than with the logistic loss.",
    metric="test accuracy",
    method="EnsLoss",
    baseline="logistic loss",
    data="digits, odd against even, a quarter of the training images",
    threshold=0.0,
    seeds={"small": 10, "full": 10},
)
def ensloss(budget: Budget, seed: int) -> Measured:
    """Dai, *EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in Classification* (2025)."""
    splits = load("digits", seed=seed)
    inputs, labels = pixels(splits.train)
    inputs, odd = inputs[::4], labels[::4] % 2
    test_inputs, test_labels = pixels(splits.test)

    def found(loss: losses.LogitsLoss) -> float:
        torch.manual_seed(seed)
        network = perceptron(inputs.shape[1], 2)
        fit_tensors(network, inputs, odd, loss, epochs=budget.pick(smoke=2, small=200, full=1000))
        with torch.no_grad():
            return float((network(test_inputs).argmax(1) == test_labels % 2).float().mean())

    return Measured(found(losses.EnsLoss()), found(losses.CrossEntropy()))


@claim(
    "harmonic-loss",
    statement="With few training images the harmonic loss gives a more accurate classifier than cross-entropy.",
    metric="test accuracy",
    method="harmonic head",
    baseline="linear head",
    data="digits, a tenth of the training images",
    threshold=0.0,
    seeds={"small": 10, "full": 10},
)
def harmonic(budget: Budget, seed: int) -> Measured:
    """Baek et al., *Harmonic Loss Trains Interpretable AI Models* (2025): it claims to need less data."""
    splits = load("digits", seed=seed)
    tenth = replace(splits, train=splits.train.subset(np.arange(0, len(splits.train), 10)))
    options = {
        "backbone": "convnet:width=16,depth=3",
        "epochs": budget.pick(smoke=1, small=60, full=100),
        "seed": seed,
        "device": budget.device,
    }
    harmonic, linear = (accuracy(train(tenth, head=head, **options), tenth.test) for head in ("harmonic", "linear"))
    return Measured(harmonic, linear)


def _two_digits(images: ImageSet, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pairs of digits side by side, which make a number below 100, the class."""
    rows, labels = pixels(images)
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randint(len(rows), (2, count), generator=generator)
    return torch.cat([rows[left], rows[right]], 1), 10 * labels[left] + labels[right]


def _top(logits: Tensor, targets: Tensor, k: int) -> float:
    return float((logits.topk(k, 1).indices == targets[:, None]).any(1).float().mean())


@claim(
    "z-loss",
    statement="With many classes the Z-loss puts the right one among the first five more often than cross-entropy.",
    metric="top-5 test accuracy",
    method="Z-loss, b chosen on validation images",
    baseline="cross-entropy",
    data="pairs of digits: 100 classes",
    threshold=0.0,
)
def z_loss(budget: Budget, seed: int) -> Measured:
    """De Brébisson and Vincent, *The Z-loss* (2016), which tunes b for the ranking score that is wanted."""
    splits = load("digits", seed=seed)
    count = budget.pick(smoke=300, small=3000, full=30_000)
    inputs, targets = _two_digits(splits.train, count, seed)
    seen, held_out = (_two_digits(images, 2000, seed + 1) for images in (splits.val, splits.test))

    def logits(loss: losses.LogitsLoss) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        network = perceptron(inputs.shape[1], 100)
        fit_tensors(network, inputs, targets, loss, epochs=budget.pick(smoke=1, small=20, full=60))
        with torch.no_grad():
            return network(seen[0]), network(held_out[0])

    tried = [logits(losses.ZLoss(b=b)) for b in budget.pick(smoke=(6.0,), small=(3.0, 6.0, 9.0), full=(3.0, 6.0, 9.0))]
    _, best = max(tried, key=lambda pair: _top(pair[0], seen[1], 5))
    _, plain = logits(losses.CrossEntropy())
    top1 = {"Z-loss: top-1": _top(best, held_out[1], 1), "cross-entropy: top-1": _top(plain, held_out[1], 1)}
    return Measured(_top(best, held_out[1], 5), _top(plain, held_out[1], 5), top1)


@claim(
    "legendretron",
    statement="With many classes, linear scores and a learned link are more accurate than logistic regression.",
    metric="test accuracy",
    method="linear scores, learned link",
    baseline="linear scores, softmax",
    data="pairs of digits: 100 classes",
    threshold=0.0,
)
def legendretron(budget: Budget, seed: int) -> Measured:
    """Lam et al., *LegendreTron: Uprising Proper Multiclass Loss Learning* (2023).

    `extra` has the log-likelihood of the test images, which a proper loss is to make large.
    """
    splits = load("digits", seed=seed)
    inputs, targets = _two_digits(splits.train, budget.pick(smoke=300, small=3000, full=30_000), seed)
    test_inputs, test_targets = _two_digits(splits.test, 2000, seed + 1)

    def log_p(head: heads.Head) -> Tensor:
        fit_tensors(
            head,
            inputs,
            targets,
            losses.CrossEntropy(),
            epochs=budget.pick(smoke=1, small=40, full=240),
            learning_rate=0.01,
        )
        with torch.no_grad():
            return head(test_inputs).log_softmax(1)

    torch.manual_seed(seed)
    learned = log_p(heads.Legendre(inputs.shape[1], 100))
    torch.manual_seed(seed)
    plain = log_p(heads.Linear(inputs.shape[1], 100))
    likelihood = {
        f"{name}: log-likelihood": float(found.gather(1, test_targets[:, None]).mean())
        for name, found in (("learned link", learned), ("softmax", plain))
    }
    return Measured(_top(learned, test_targets, 1), _top(plain, test_targets, 1), likelihood)


@claim(
    "asl",
    statement="The asymmetric loss ranks the images of each label better than binary cross-entropy.",
    metric="mean average precision over labels",
    method="asymmetric loss",
    baseline="binary cross-entropy",
    data="scenes of one to four digits",
    threshold=0.0,
)
def asl(budget: Budget, seed: int) -> Measured:
    """Ridnik et al., *Asymmetric Loss For Multi-Label Classification* (2021)."""
    splits = load("digits", seed=seed)
    count = budget.pick(smoke=300, small=3000, full=30_000)
    inputs, targets = several_digits(splits.train, count, seed)
    test_inputs, test_targets = several_digits(splits.test, 1000, seed + 1)

    def precision(loss: losses.Asymmetric) -> float:
        torch.manual_seed(seed)
        network = perceptron(inputs.shape[1], 10)
        fit_tensors(network, inputs, targets, loss, epochs=budget.pick(smoke=1, small=30, full=60))
        with torch.no_grad():
            return float(average_precision_score(test_targets.numpy(), network(test_inputs).numpy(), average="macro"))

    plain = losses.Asymmetric(gamma_negative=0.0, margin=0.0)  # binary cross-entropy, with the same sum over labels
    return Measured(precision(losses.Asymmetric()), precision(plain))


@claim(
    "reject-fixed-predictor",
    statement=(
        "A rejector trained with the surrogate costs less than a threshold on the probability of a fixed predictor, "
        "where a wrong answer costs 1 and a rejected one c."
    ),
    metric="mean cost on test images, c = 0.1",
    method="trained rejector",
    baseline="threshold 1 - c on the largest probability",
    data="digits, of which one half is noisy",
    threshold=0.0,
    higher_is_better=False,
    seeds={"small": 10, "full": 10},
)
def reject(budget: Budget, seed: int) -> Measured:
    """Mohri et al., *Learning to Reject with a Fixed Predictor* (2024).

    The predictor sees clean digits only, so its probabilities mislead on noisy ones; the rejector learns from noisy and
    clean digits whether it was right.
    """
    cost = 0.1
    splits = load("digits", seed=seed)
    generator = torch.Generator().manual_seed(seed)

    def half_noisy(inputs: Tensor) -> Tensor:
        noise = 0.5 * torch.randn(inputs.shape, generator=generator)
        return inputs + noise * (torch.rand(len(inputs), 1, generator=generator) < 0.5)

    inputs, targets = pixels(splits.train)
    half = len(inputs) // 2
    epochs = budget.pick(smoke=2, small=60, full=200)
    predictor = perceptron(inputs.shape[1], 10)
    fit_tensors(predictor, inputs[:half], targets[:half], losses.CrossEntropy(), epochs=epochs)
    rest = half_noisy(inputs[half:].repeat(4, 1))
    test_inputs, test_targets = pixels(splits.test)
    test_inputs = half_noisy(test_inputs)
    with torch.no_grad():
        right = (predictor(rest).argmax(1) == targets[half:].repeat(4)).float()[:, None]
        probabilities = predictor(test_inputs).softmax(1)
    rejector = perceptron(inputs.shape[1], 1)
    fit_tensors(rejector, rest, right, losses.Reject(cost), epochs=epochs)
    with torch.no_grad():
        accepted = rejector(test_inputs)[:, 0] > 0
    wrong = probabilities.argmax(1) != test_targets

    def price(accepted: Tensor) -> float:
        return float(torch.where(accepted, wrong.float(), cost).mean())

    sure = probabilities.amax(1) > 1 - cost
    extra = {"rejector: coverage": float(accepted.float().mean()), "threshold: coverage": float(sure.float().mean())}
    return Measured(price(accepted), price(sure), extra)
