"""The claim of *Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time* (2022).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, new_method, optimise, resolved, train
from repertoire.claims.beds.handwriting import DIGITS, split_images
from repertoire.claims.beds.raw import raw_accuracy
from repertoire.data import ImageSet, Loader, Splits
from repertoire.weights import greedy_soup, refresh_batchnorm, uniform_soup

RATES = (0.02, 0.03, 0.05)
AUGMENTATIONS = ("shift:pixels=1", "shift:pixels=2")


def raw_floor(budget: Budget, seed: int) -> float:
    """What the pixels of the digits give without a network."""
    return raw_accuracy(_digits(budget, seed))


def _digits(budget: Budget, seed: int) -> Splits:
    return split_images(budget, seed, budget.pick(smoke=100, small=300, full=300))


@claim(
    "model-soups",
    statement=(
        "Of networks fine-tuned from one start with different hyper-parameters, the greedy soup of their weights is "
        "more accurate on held-out data, by 0.2 percentage points, than the network that validates best."
    ),
    metric="test accuracy",
    method="greedy soup of six networks",
    baseline="the best of the six on validation images",
    bed="mnist5k",
    data=DIGITS + ", 30 of each, after garments of Fashion-MNIST",
    threshold=0.002,
    learned=0.02,
    floor=raw_floor,
    ceiling=1.0,
)
def model_soups(budget: Budget, seed: int) -> Measured:
    """Wortsman et al., *Model soups: averaging weights of multiple fine-tuned models improves accuracy without
    increasing inference time* (2022). The mean of weights does not give the mean of activations, so the statistics of
    batch normalisation are computed anew, for soups and single networks alike. `extra` has the mean of the six and
    their uniform soup, which is no worse than that mean where they lie in one basin."""
    options: dict[str, Any] = {
        "backbone": budget.pick(smoke="convnet:width=8,depth=2", small="convnet:width=16,depth=3", full="resnet32"),
        "device": budget.device,
    }
    source = split_images(budget, seed, budget.pick(smoke=200, small=6000, full=9000), bed="fashion-mnist")
    target = _digits(budget, seed)
    pretrained = train(
        source, epochs=budget.pick(smoke=1, small=5, full=60), augment="crop-flip", batch_size=64, seed=seed, **options
    )

    options["batch_size"] = 32
    config = resolved(
        target, epochs=budget.pick(smoke=1, small=3, full=5), lr=0.01, augment="none", seed=seed, **options
    )
    start = new_method(target, config)
    start.model.backbone.load_state_dict(pretrained.model.backbone.state_dict())
    optimise(start, target, config)  # a head that all the networks share

    epochs = budget.pick(smoke=1, small=30, full=60)
    states: list[Mapping[str, Tensor]] = []
    for number, (rate, augment) in enumerate(itertools.product(RATES, AUGMENTATIONS)):
        config = resolved(target, epochs=epochs, lr=rate, augment=augment, seed=1000 * seed + number, **options)
        states.append(optimise(copy.deepcopy(start), target, config).model.state_dict())

    def score(state: Mapping[str, Tensor], images: ImageSet) -> float:
        start.model.load_state_dict(dict(state))
        refresh_batchnorm(start.model, Loader(target.train, 256, shuffle=False, device=budget.device).epoch(0))
        return accuracy(start, images)

    best = max(states, key=lambda state: score(state, target.val))
    greedy = greedy_soup(states, lambda state: score(state, target.val))
    return Measured(
        method=score(greedy, target.test),
        baseline=score(best, target.test),
        extra={
            "uniform soup": score(uniform_soup(states), target.test),
            "mean of the six": sum(score(state, target.test) for state in states) / len(states),
        },
    )
