"""The claim of *Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time* (2022).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping

from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, new_method, optimise, resolved, train
from repertoire.data import ImageSet, Loader, load
from repertoire.weights import greedy_soup, refresh_batchnorm, uniform_soup

RATES = (0.01, 0.03, 0.1)


AUGMENTATIONS = ("crop-flip", "resized-crop")


@claim(
    "model-soups",
    statement=(
        "Of networks fine-tuned from one start with different hyper-parameters, the greedy soup of their weights is "
        "more accurate on held-out data than the network that validates best."
    ),
    metric="test accuracy",
    method="greedy soup of six networks",
    baseline="the best of the six on validation images",
    data="shapes: pre-trained on 6 classes, fine-tuned on 12, 32 pixels",
    threshold=0.0,
)
def model_soups(budget: Budget, seed: int) -> Measured:
    """Wortsman et al., *Model soups: averaging weights of multiple fine-tuned models improves accuracy without
    increasing inference time* (2022). The mean of weights does not give the mean of activations, so the statistics of
    batch normalisation are computed anew, for soups and single networks alike."""
    options = {
        "backbone": budget.pick(smoke="convnet:width=8", small="convnet:width=16", full="resnet32"),
        "device": budget.device,
    }
    source_count = budget.pick(smoke=300, small=3000, full=50_000)
    # Another seed: image i of a class is the same in all data of one seed.
    source = load(f"shapes:count={source_count},classes=6", size=32, seed=seed + 1000)
    count = budget.pick(smoke=300, small=2500, full=20_000)
    target = load(f"shapes:count={count},classes=12", size=32, seed=seed, val=0.3, test=0.3)
    pretrained = train(source, epochs=budget.pick(smoke=1, small=8, full=60), augment="crop-flip", seed=seed, **options)

    config = resolved(
        target, epochs=budget.pick(smoke=1, small=2, full=5), lr=0.03, augment="crop-flip", seed=seed, **options
    )
    start = new_method(target, config)
    start.model.backbone.load_state_dict(pretrained.model.backbone.state_dict())
    optimise(start, target, config)  # a head that all the networks share

    epochs = budget.pick(smoke=1, small=6, full=30)
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
