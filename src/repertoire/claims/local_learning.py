"""Claims of papers on local learning."""

from __future__ import annotations

from typing import Any

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.data import Splits, load


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
