"""The claim of *Well-classified Examples are Underestimated in Classification with Deep Neural Networks* (2021)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds import majority


@claim(
    "encouraging-loss",
    statement="The encouraging loss gives a more accurate classifier than cross-entropy.",
    metric="test accuracy",
    method="encouraging loss",
    baseline="cross-entropy",
    data="digits",
    threshold=0.0,
    own_data=True,
    learned=0.05,
)
def encouraging(budget: Budget, seed: int) -> Measured:
    """Zhao et al., *Well-classified Examples are Underestimated in Classification with Deep Neural Networks* (2022)."""
    splits = budget.splits("digits", seed=seed)
    options = {
        "backbone": budget.pick(smoke="convnet:width=4,depth=2", small="convnet:width=8", full="convnet:width=32"),
        "epochs": budget.pick(smoke=1, small=20, full=100),
        "seed": seed,
        "device": budget.device,
    }
    ours, plain = (
        accuracy(train(splits, loss=loss, **options), splits.test) for loss in ("encouraging", "cross-entropy")
    )
    return Measured(method=ours, baseline=plain, trivial=majority(splits.test))
