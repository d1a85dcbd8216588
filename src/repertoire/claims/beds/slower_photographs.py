"""Photographs without labels, for methods that want a lower rate than SimCLR: BYOL's family, and DIET.

Images, network, views and read-outs are those of `ssl_photographs`. At its rate of 0.005, a linear probe of DIET was
3.6 points and one point above that of random weights in two seeds; BYOL gained up to four points in a linear probe, and
its nearest neighbours were no better than theirs in ten epochs. On seed 1000, where a linear probe of random weights
has 0.3945 and their nearest neighbours 0.3495, all that was tried reached

| method | batch | rate | momentum | epochs | linear probe | neighbours |
|---|--:|--:|--:|--:|--:|--:|
| BYOL | 128 | 0.005 | 0.9 | 10 | 0.414 | 0.3495 |
| BYOL | 64 | 0.005 | 0.9 | 10 | 0.4285 | 0.3305 |
| BYOL | 64 | 0.005 | 0.95 | 10 | 0.4315 | 0.3385 |
| BYOL | 64 | 0.005 | 0.97 | 10 | 0.4195 | 0.3355 |
| BYOL | 32 | 0.005 | 0.95 | 10 | 0.392 | 0.3355 |
| BYOL | 128 | 0.005 | 0.97 | 20 | 0.4325 | 0.363 |
| BYOL | 64 | 0.002 | 0.9 | 10 | 0.432 | 0.3625 |
| BYOL | 64 | 0.002 | 0.95 | 10 | 0.4225 | 0.362 |
| BYOL | 64 | 0.002 | 0.99 | 10 | 0.4215 | 0.370 |
| BYOL | 32 | 0.002 | 0.95 | 20 | 0.4285 | 0.380 |
| BYOL | 64 | 0.001 | 0.97 | 10 | 0.411 | 0.374 |
| BYOL | 32 | 0.001 | 0.97 | 10 | 0.421 | 0.378 |
| BYOL | 32 | 0.001 | 0.97 | 20 | 0.4275 | 0.407 |
| BYOL | 32 | 0.001 | 0.99 | 20 | 0.434 | 0.398 |
| DIET | 64 | 0.002 | | 20 | 0.4445 | 0.402 |
| DIET | 64 | 0.001 | | 20 | 0.4385 | 0.402 |
| DIET | 32 | 0.001 | | 20 | 0.4275 | 0.4075 |
"""

from __future__ import annotations

from repertoire.claims import Budget, arm
from repertoire.claims._training import train
from repertoire.claims.beds.ssl_photographs import VIEWS, options_of, photographs, told

__all__ = ["bootstrapped", "learned_slowly"]


@arm
def learned_slowly(
    budget: Budget, seed: int, *, method: str, batch: int = 32, rate: float = 1e-3, share: float = 2.0
) -> dict[str, float]:
    """Training images without their labels, and then what their features tell.

    Args:
        method: spec.
        batch: images in a batch.
        rate: of learning, at the beginning.
        share: of the ten epochs of `ssl_photographs`.

    Returns:
        What `told` has of the features.
    """
    splits = photographs(budget, seed)
    own = {"method": method, "loss": "auto", "augment": VIEWS, "batch_size": batch, "lr": rate}
    return told(train(splits, **options_of(budget, seed, share) | own), splits)


def bootstrapped(budget: Budget, seed: int, *, method: str) -> dict[str, float]:
    """`learned_slowly` of BYOL's family: batches of 64, a rate of 0.002 and ten epochs, a minute of a core for BYOL. In
    batches of 32 and twice the epochs it takes more than two, and the arms of five seeds more than a claim may cost."""
    return learned_slowly(budget, seed, method=method, batch=64, rate=2e-3, share=1.0)
