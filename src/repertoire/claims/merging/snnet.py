"""The claim of *Stitchable Neural Networks* (2023)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import train
from repertoire.claims.beds._named import majority
from repertoire.claims.beds.handwriting import GARMENTS, split_images
from repertoire.data import Loader, Splits
from repertoire.methods import Classifier
from repertoire.train import outputs
from repertoire.weights import Stitched, stitch, train_stitched


def joined(
    budget: Budget, seed: int, splits: Splits, models: Sequence[Classifier], initial: Literal["least-squares", "random"]
) -> Stitched:
    """Copies of the networks, stitched and trained together for an epoch."""
    where = torch.device(budget.device)
    fitted = Loader(splits.train, 128, shuffle=False, device=where)
    seen = Loader(splits.train, 64, device=where, seed=seed)
    torch.manual_seed(seed)
    net = stitch(copy.deepcopy(list(models)), fitted.epoch(0), initial=initial)
    return train_stitched(net, lambda: seen.epoch(0), epochs=1, seed=seed, statistics=lambda: fitted.epoch(0))


def right(net: Stitched, splits: Splits, device: str) -> list[float]:
    """The accuracy of every route, by rising cost."""
    found = [outputs(net.use(n), splits.test, device=torch.device(device)) for n in range(len(net.routes))]  # type: ignore[arg-type]
    return [float((each.logits.argmax(1) == np.asarray(splits.test.labels)).mean()) for each in found]


def area(net: Stitched, values: Sequence[float], routes: Sequence[int]) -> float:
    """The mean accuracy over the costs from the cheapest route to the dearest, on the lines between routes."""
    costs = torch.tensor([float(net.routes[number].flops) for number in routes])
    under = torch.trapezoid(torch.tensor([values[number] for number in routes]), costs)
    return float(under / (costs[-1] - costs[0]))


@claim(
    "snnet",
    statement=(
        "After one epoch of training together, routes through stitched networks whose stitching layers began as least "
        "squares are more accurate, by two percentage points over the range of costs, than those that began at random."
    ),
    metric="test accuracy, mean over the costs between the smallest and the largest network",
    method="least squares",
    baseline="random stitching layers",
    bed="fashion-mnist",
    data=GARMENTS,
    threshold=0.02,
    learned=0.1,
    ceiling=1.0,
)
def snnet(budget: Budget, seed: int) -> Measured:
    """Pan, Cai and Zhuang, *Stitchable Neural Networks* (2023), section 3.2. Three networks that rise in width; costs
    are operations of convolutions and linear layers. `extra` has the same mean for the three networks alone, before
    they were stitched, with images shared out to two of them in between: after one epoch, no route need be better."""
    splits = split_images(budget, seed, budget.pick(smoke=200, small=3000, full=9000), bed="fashion-mnist")
    models = [
        train(
            splits,
            backbone=f"convnet:width={width},depth=3",
            epochs=budget.pick(smoke=1, small=8, full=60),
            optimizer="adamw",
            lr=1e-2,
            batch_size=64,
            augment="none",
            seed=3 * seed + number,
            device=budget.device,
        ).model
        for number, width in enumerate(budget.pick(smoke=(2, 4), small=(4, 8, 16), full=(8, 16, 32)))
    ]
    nets = [joined(budget, seed, splits, models, initial) for initial in ("least-squares", "random")]
    ours, plain = (area(net, right(net, splits, budget.device), range(len(net.routes))) for net in nets)
    alone = Stitched(models, list(nets[0].stitches), nets[0].routes)
    parts = [number for number, route in enumerate(alone.routes) if route.join < 0]
    extra = {"the networks alone": area(alone, right(alone, splits, budget.device), parts)}
    return Measured(ours, plain, extra, trivial=majority(splits.test))
