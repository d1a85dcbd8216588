"""The claim of *Scaling Supervised Local Learning with Augmented Auxiliary Networks* (2024)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds.drawn_objects import local_shapes


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
)
def auglocal(budget: Budget, seed: int) -> Measured:
    """Ma et al., *Scaling Supervised Local Learning with Augmented Auxiliary Networks* (2024): ten gradient-isolated
    units of a resnet20. The same with linear read-outs is in `extra`."""
    splits, options = local_shapes(budget, seed)
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
