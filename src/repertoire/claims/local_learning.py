"""Claims of papers on local learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, pixels, train
from repertoire.data import Splits, load
from repertoire.estimators import BoostedNetworkClassifier
from repertoire.local import LocalLearning, RecurrentTargetProjection


def _shapes(budget: Budget, seed: int) -> tuple[Splits, dict[str, Any]]:
    """Small images of six shapes, and how a residual network is trained on them: back-propagation comes near to its
    best within the epochs, so that a rule cannot win by learning faster at first. Nearly half of the images are for
    the test, because the differences are small."""
    count = budget.pick(smoke=140, small=2400, full=60_000)
    splits = load(
        f"shapes:count={count},classes=6", size=budget.pick(smoke=16, small=16, full=32), seed=seed, val=0.05, test=0.45
    )
    return splits, {
        "backbone": budget.pick(smoke="convnet:width=4", small="resnet20:width=8", full="resnet32"),
        "batch_size": budget.pick(smoke=32, small=32, full=128),
        "augment": "crop-flip",
        "seed": seed,
        "device": budget.device,
    }


@claim(
    "auglocal",
    statement=(
        "With a loss of its own for each layer and auxiliary networks made of later layers, a residual network is no "
        "more than two points less accurate than with back-propagation."
    ),
    metric="test accuracy",
    method="every unit a block, AugLocal of depth 2",
    baseline="back-propagation",
    data="shapes: 6 classes, 16 pixels",
    threshold=-0.02,
    seeds={"small": 3, "full": 3},
)
def auglocal(budget: Budget, seed: int) -> Measured:
    """Ma et al., *Scaling Supervised Local Learning with Augmented Auxiliary Networks* (2024): ten gradient-isolated
    units of a resnet20. The same with linear read-outs is in `extra`."""
    splits, options = _shapes(budget, seed)
    epochs = budget.pick(smoke=1, small=12, full=100)
    found = {
        rule: accuracy(train(splits, rule=rule, epochs=epochs, **options), splits.test)
        for rule in (
            "local:blocks=all,auxiliary=(auglocal:depth=2)",
            "backprop",
            "local:blocks=all,auxiliary=linear",
        )
    }
    method, baseline, linear = found.values()
    return Measured(method=method, baseline=baseline, extra={"every unit a block, linear read-outs": linear})


@claim(
    "man",
    statement=(
        "Blocks whose auxiliary networks begin with a moving average of the next block's first layer, beside a trained "
        "copy of it, make a more accurate classifier than with the trained copy alone."
    ),
    metric="test accuracy",
    method="4 blocks, moving average and learnable bias",
    baseline="4 blocks, learnable bias alone",
    data="shapes: 6 classes, 16 pixels",
    threshold=0.0,
    seeds={"small": 3, "full": 3},
)
def man(budget: Budget, seed: int) -> Measured:
    """Su et al., *Momentum Auxiliary Network for Supervised Local Learning* (2024). Both have the same trained weights
    and differ in the average alone. The paper's momentum of 0.995 remembers 200 of its 60,000 steps; of the few hundred
    of the small budget 0.9 remembers 10. Linear read-outs without either are in `extra`."""
    splits, options = _shapes(budget, seed)
    epochs = budget.pick(smoke=1, small=10, full=100)
    momentum = budget.pick(smoke=0.9, small=0.9, full=0.995)
    found = {
        auxiliary: accuracy(
            train(splits, rule=f"local:blocks=4,auxiliary=({auxiliary})", epochs=epochs, **options), splits.test
        )
        for auxiliary in (f"man:base=linear,momentum={momentum}", "man:base=linear,momentum=none", "linear")
    }
    method, baseline, linear = found.values()
    return Measured(method=method, baseline=baseline, extra={"4 blocks, linear read-outs": linear})


def _shallow(kind: str, width: int) -> nn.Module:
    """A shallow network on digits of 8 pixels, given as rows of 64 numbers."""
    if kind == "perceptron":
        return nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10))
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, width // 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width // 8, width // 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(width, 10),
    )


class _Rows(nn.Module):
    """A recurrent network that reads an image row by row, and classifies by its last hidden state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(8, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.recurrent(rows.unflatten(1, (8, 8)))[0][:, -1])


def _fit_steps(
    step: Callable[[Tensor, Tensor], object], inputs: Tensor, labels: Tensor, epochs: int, batch_size: int
) -> None:
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).to(inputs.device).split(batch_size):
            step(inputs[rows], labels[rows])


def _digits_by(rule: str, kind: str, budget: Budget, seed: int) -> float:
    """Test accuracy on digits of one kind of network, trained by one rule; optimiser and order are the same for all."""
    device = budget.device
    width, epochs = budget.pick(smoke=(32, 1), small=(128, 15), full=(512, 60))
    splits = load("digits", seed=seed)
    count = budget.pick(smoke=160, small=len(splits.train), full=len(splits.train))
    inputs, labels = (part[:count].to(device) for part in pixels(splits.train))
    test_inputs, test_labels = (part.to(device) for part in pixels(splits.test))
    torch.manual_seed(seed)
    network = (_Rows(width) if kind == "recurrent" else _shallow(kind, width)).to(device).train()

    def adam(module: nn.Module, rate: float = 3e-3) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), lr=rate)

    if rule == "backprop":
        optimizer = adam(network)

        def step(x: Tensor, y: Tensor) -> None:
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()

    elif isinstance(network, _Rows):
        recurrent = RecurrentTargetProjection(network.recurrent, network.head, adam)

        def step(x: Tensor, y: Tensor) -> None:
            recurrent.step(x.unflatten(1, (8, 8)), y)

    else:
        frozen = rule == "last layer"
        distance = "direct" if rule == "direct" else "l2"
        learner = LocalLearning(
            network,
            "all",
            f"target-projection:distance={distance}",
            # The last block has the only layer of ten outputs; a rate of zero leaves the others as they were drawn.
            lambda block: adam(block, 0.0 if frozen and not _gives_classes(block) else 3e-3),
            example=inputs[:2],
        )

        def step(x: Tensor, y: Tensor) -> None:
            learner.step(x, y)

    torch.manual_seed(seed)
    _fit_steps(step, inputs, labels, epochs, batch_size=32)
    with torch.no_grad():
        return float((network.eval()(test_inputs).argmax(1) == test_labels).float().mean())


def _gives_classes(block: nn.Module) -> bool:
    return any(isinstance(m, nn.Linear) and m.out_features == 10 for m in block.modules())


@claim(
    "tpsgd",
    statement=(
        "On a perceptron, a convolutional and a recurrent network of two or three layers, target projection SGD is no "
        "more than five points less accurate than back-propagation, wherever it falls furthest behind."
    ),
    metric="test accuracy, of the kind of network where target projection falls furthest behind",
    method="target projection SGD",
    baseline="back-propagation",
    data="digits, 8 pixels",
    threshold=-0.05,
    seeds={"small": 3},
)
def tpsgd(budget: Budget, seed: int) -> Measured:
    """Lomnitz et al., *Learning with Local Gradients at the Edge* (2022). Every layer has a target of its own, the head
    learns with cross-entropy, and no gradient passes between layers or time steps. On the perceptron, `extra` has
    direct random target projection, and hidden layers left as they were drawn."""
    kinds = ("perceptron", "convolutional", "recurrent")
    found = {(rule, kind): _digits_by(rule, kind, budget, seed) for rule in ("tpsgd", "backprop") for kind in kinds}
    worst = min(kinds, key=lambda kind: found["tpsgd", kind] - found["backprop", kind])
    extra = {f"{kind}: {rule}": value for (rule, kind), value in found.items()}
    for rule, name in (("direct", "direct random target projection"), ("last layer", "only the last layer trained")):
        extra[f"perceptron: {name}"] = _digits_by(rule, "perceptron", budget, seed)
    return Measured(found["tpsgd", worst], found["backprop", worst], extra)


def _without_random_units(joint: Pipeline, share: float, seed: int) -> Pipeline:
    """Switches off a share of the hidden units of a network that was trained as a whole. Changes it in place."""
    weights = joint[-1].coefs_[1]
    off = np.random.default_rng(seed).permutation(len(weights))[: int(share * len(weights))]
    weights[off] = 0.0
    return joint


@claim(
    "gb-nn",
    statement=(
        "A hidden layer trained by gradient boosting, with the quarter of its units that came last switched off, is no "
        "more than one point less accurate than the same layer trained as a whole, with all of its units."
    ),
    metric="test accuracy, mean over the data sets",
    method="boosted hidden layer, the last quarter of its units off",
    baseline="hidden layer of the same width, trained as a whole by Adam",
    data="breast cancer, wine and digits of scikit-learn",
    threshold=-0.01,
    seeds={"small": 5},
)
def gb_nn(budget: Budget, seed: int) -> Measured:
    """Emami and Martínez-Muñoz, *Sequential Training of Neural Networks with Gradient Boosting* (2019): both halves of
    what it says, that the boosted network is competitive and that its last units can be switched off. `extra` has all
    units, half of them, the joint network without a random quarter of its units, and boosted trees."""
    stages = budget.pick(smoke=4, small=28, full=50)
    sets = {"breast cancer": load_breast_cancer, "wine": load_wine, "digits": load_digits}
    scores: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        scores.setdefault(name, []).append(float(value))

    for fetch in budget.pick(smoke=[load_wine], small=[*sets.values()], full=[*sets.values()]):
        x, y = fetch(return_X_y=True)
        seen, held_out, labels, test_labels = train_test_split(x, y, test_size=0.3, random_state=seed, stratify=y)
        boosted = BoostedNetworkClassifier(n_stages=stages, n_neurons=4, max_iter=60, random_state=seed)
        boosted.fit(seen, labels)
        for name, share in (("boosted, all units", 1.0), ("boosted, 3/4", 0.75), ("boosted, half of the units", 0.5)):
            used = round(share * boosted.n_stages_)
            note(name, (boosted.predict(held_out, stages=used) == test_labels).mean())
        joint = make_pipeline(
            StandardScaler(),
            MLPClassifier(hidden_layer_sizes=(4 * stages,), activation="logistic", max_iter=1000, random_state=seed),
        ).fit(seen, labels)
        note("joint, all units", joint.score(held_out, test_labels))
        note("joint, a random quarter off", _without_random_units(joint, 0.25, seed).score(held_out, test_labels))
        trees = HistGradientBoostingClassifier(max_iter=budget.pick(smoke=5, small=100, full=100), random_state=seed)
        note("histogram gradient boosting", trees.fit(seen, labels).score(held_out, test_labels))
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    return Measured(means.pop("boosted, 3/4"), means.pop("joint, all units"), means)
