"""The claim of *Momentum Auxiliary Network for Supervised Local Learning* (2024)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds._named import majority
from repertoire.claims.beds.handwriting import GARMENTS
from repertoire.claims.beds.local_images import local_images


@claim(
    "man",
    statement=(
        "Blocks whose auxiliary networks begin with a moving average of the next block's first layer, beside a trained "
        "copy of it, make a more accurate classifier than with the trained copy alone."
    ),
    metric="test accuracy",
    method="4 blocks, moving average and learnable bias",
    baseline="4 blocks, learnable bias alone",
    bed="fashion-mnist",
    data=GARMENTS,
    threshold=0.0,
    learned=0.5,
)
def man(budget: Budget, seed: int) -> Measured:
    """Su et al., *Momentum Auxiliary Network for Supervised Local Learning* (2024). Both have the same trained weights
    and differ in the average alone. The paper's momentum of 0.995 remembers 200 of its 60,000 steps; of the few hundred
    of the small budget 0.9 remembers 10. Linear read-outs without either are in `extra`."""
    splits, options = local_images(budget, seed)
    momentum = budget.pick(smoke=0.9, small=0.9, full=0.995)
    found = {
        auxiliary: accuracy(train(splits, rule=f"local:blocks=4,auxiliary=({auxiliary})", **options), splits.test)
        for auxiliary in (f"man:base=linear,momentum={momentum}", "man:base=linear,momentum=none", "linear")
    }
    method, baseline, linear = found.values()
    extra = {"4 blocks, linear read-outs": linear}
    return Measured(method, baseline, extra, trivial=majority(splits.test))
