"""The claim of *Sharpness-Aware Minimization for Efficiently Improving Generalization* (2020)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds import majority


@claim(
    "sam",
    statement=(
        "With two in five training labels wrong, sharpness-aware minimisation gives a more accurate classifier than "
        "SGD with the same number of steps."
    ),
    metric="test accuracy",
    method="SAM, radius 0.1",
    baseline="SGD, equally many steps",
    data="shapes: 6 classes, 32 pixels, 40 % wrong training labels",
    threshold=0.0,
    own_data=True,
    learned=0.05,
)
def sam(budget: Budget, seed: int) -> Measured:
    """Foret et al., *Sharpness-Aware Minimization for Efficiently Improving Generalization* (2020): label noise,
    where the paper uses the radius 0.1 for 40 % noise. A step of SAM costs two of SGD; SGD with twice the
    steps is in `extra`."""
    count = budget.pick(smoke=300, small=2000, full=50_000)
    splits = budget.splits(f"shapes:count={count},classes=6,noise=0.4", size=32, seed=seed)
    epochs = budget.pick(smoke=1, small=12, full=100)
    options = {
        "backbone": budget.pick(smoke="convnet:width=8", small="convnet:width=16", full="resnet32"),
        "augment": "crop-flip",
        "seed": seed,
        "device": budget.device,
    }
    sharpness_aware = train(splits, rule="sam:rho=0.1", epochs=epochs, **options)
    plain = train(splits, epochs=epochs, **options)
    longer = train(splits, epochs=2 * epochs, **options)
    return Measured(
        method=accuracy(sharpness_aware, splits.test),
        baseline=accuracy(plain, splits.test),
        extra={"SGD, twice the steps": accuracy(longer, splits.test)},
        trivial=majority(splits.test),
    )
