"""The claim of *Scaling Supervised Local Learning with Augmented Auxiliary Networks* (2024)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds.handwriting import GARMENTS
from repertoire.claims.beds.local_images import local_images, raw_garments


@claim(
    "auglocal",
    statement=(
        "With a loss of its own for each layer and auxiliary networks made of later layers, a residual network is no "
        "more than two points less accurate than with back-propagation."
    ),
    metric="test accuracy",
    method="every unit a block, AugLocal of depth 2",
    baseline="back-propagation",
    bed="fashion-mnist",
    data=GARMENTS,
    threshold=-0.02,
    learned=0.01,
    floor=raw_garments,
)
def auglocal(budget: Budget, seed: int) -> Measured:
    """Ma et al., *Scaling Supervised Local Learning with Augmented Auxiliary Networks* (2024): ten gradient-isolated
    units of a resnet20. Linear read-outs in their place, which no longer are in `extra`, had 0.769 on a pilot seed."""
    splits, options = local_images(budget, seed)
    method, baseline = (
        accuracy(train(splits, rule=rule, **options), splits.test)
        for rule in ("local:blocks=all,auxiliary=(auglocal:depth=2)", "backprop")
    )
    return Measured(method, baseline)
