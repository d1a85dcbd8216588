"""The claim of *Rethinking The Uniformity Metric in Self-Supervised Learning* (2024)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.diagnostics import uniformity, wasserstein_uniformity

DIRECTIONS = "random directions in 256 dimensions, of which half are then left unused"


@claim(
    "wasserstein-uniformity",
    statement=(
        "When half of 256 dimensions fall out of use, the Wasserstein distance to an even spread rises by a larger "
        "share of its range than the usual uniformity metric does of its own: larger by more than a tenth."
    ),
    metric="rise of the metric, as a share of the way to features that are all the same",
    method="Wasserstein distance to an even spread",
    baseline="logarithm of the mean Gaussian potential",
    data=DIRECTIONS,
    threshold=0.1,
    guard="none: nothing is learned, two metrics of the same directions on scales from an even spread to one point",
)
def wasserstein(budget: Budget, seed: int) -> Measured:
    """Fang et al., *Rethinking The Uniformity Metric in Self-Supervised Learning* (2024): the collapse of dimensions
    that the metric of Wang and Isola hardly sees."""
    count = budget.pick(smoke=1000, small=10_000, full=100_000)
    even = torch.randn(count, 256, generator=torch.Generator().manual_seed(seed)).to(budget.device)
    rises = {}
    for unused in (0.25, 0.5, 0.75):
        features = even.clone()
        features[:, : int(256 * unused)] = 0
        rises[unused] = [_rise(metric, even, features) for metric in (wasserstein_uniformity, uniformity)]
    extra = {}
    for unused in (0.25, 0.75):
        extra[f"Wasserstein, {unused:.0%} unused"], extra[f"usual, {unused:.0%} unused"] = rises[unused]
    return Measured(rises[0.5][0], rises[0.5][1], extra)


def _rise(metric: Callable[[Tensor], float], even: Tensor, features: Tensor) -> float:
    """How far a metric has come from that of an even spread to that of features that are all the same."""
    start, here, end = (metric(x) for x in (even, features, torch.ones_like(even)))
    return (here - start) / (end - start)
