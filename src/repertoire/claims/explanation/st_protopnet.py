"""The claim of *Learning Support and Trivial Prototypes for Interpretable Image Classification* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds._named import majority
from repertoire.claims.beds.handwriting import GARMENTS, split_images


@arm
def by_prototypes(budget: Budget, seed: int, *, sets: str) -> dict[str, float]:
    """Test accuracy by one set of prototypes, or by both. Each network takes as many steps."""
    splits = split_images(budget, seed, budget.pick(smoke=90, small=1500, full=9000), bed="fashion-mnist")
    method = train(
        splits,
        method="support-trivial",
        head=f"support-trivial:sets={sets}",
        backbone=budget.pick(smoke="convnet:width=2,depth=2", small="resnet20:width=4", full="resnet32"),
        augment="crop-flip",
        epochs=budget.pick(smoke=1, small=15, full=60),
        batch_size=64,
        seed=seed,
        device=budget.device,
    )
    return {"accuracy": accuracy(method, splits.test), "majority": majority(splits.test)}


@claim(
    "st-protopnet",
    statement=(
        "Support and trivial prototypes together classify more accurately, by half a percentage point, than trivial "
        "prototypes alone, those of a ProtoPNet."
    ),
    metric="test accuracy",
    method="support and trivial prototypes",
    baseline="trivial prototypes",
    bed="fashion-mnist",
    data=GARMENTS,
    threshold=0.005,
    learned=0.4,
)
def support_trivial(budget: Budget, seed: int) -> Measured:
    """Wang et al., *Learning Support and Trivial Prototypes for Interpretable Image Classification* (2023).

    Trivial prototypes alone are a ProtoPNet with cosines, whose prototypes are driven apart. In `extra` are support
    prototypes alone. Where both are trained they take turns, each set in half of the steps, and end below either by
    itself; whether twice the steps would mend that was not tried. Nor has any arm more than the nearest neighbour of
    raw pixels, 0.77.
    """
    both, trivial, support = (by_prototypes(budget, seed, sets=sets) for sets in ("both", "trivial", "support"))
    extra = {"support prototypes": support["accuracy"]}
    return Measured(both["accuracy"], trivial["accuracy"], extra, trivial=both["majority"])
