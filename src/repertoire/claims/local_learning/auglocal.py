"""The claim of *Scaling Supervised Local Learning with Augmented Auxiliary Networks* (2024)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds._named import majority
from repertoire.claims.beds.handwriting import GARMENTS
from repertoire.claims.beds.local_images import local_images


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
    learned=0.5,
)
def auglocal(budget: Budget, seed: int) -> Measured:
    """Ma et al., *Scaling Supervised Local Learning with Augmented Auxiliary Networks* (2024): ten gradient-isolated
    units of a resnet20. The same with linear read-outs is in `extra`."""
    splits, options = local_images(budget, seed)
    found = {
        rule: accuracy(train(splits, rule=rule, **options), splits.test)
        for rule in (
            "local:blocks=all,auxiliary=(auglocal:depth=2)",
            "backprop",
            "local:blocks=all,auxiliary=linear",
        )
    }
    method, baseline, linear = found.values()
    extra = {"every unit a block, linear read-outs": linear}
    return Measured(method, baseline, extra, trivial=majority(splits.test))
