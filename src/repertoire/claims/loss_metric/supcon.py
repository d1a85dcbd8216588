"""The claim of *Supervised Contrastive Learning* (2020)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, probe_accuracy, train
from repertoire.claims.beds import majority


@claim(
    "supcon",
    statement=(
        "A linear read-out of features trained with the supervised contrastive loss is more accurate than the same "
        "network trained with cross-entropy on equally many augmented images."
    ),
    metric="test accuracy",
    method="supervised contrastive loss, linear read-out",
    baseline="cross-entropy",
    data="shapes: 8 classes, 32 pixels",
    threshold=0.0,
    own_data=True,
    learned=0.05,
)
def supcon(budget: Budget, seed: int) -> Measured:
    """Khosla et al., *Supervised Contrastive Learning* (2020): cross-entropy against L_out.

    The contrastive loss sees two views of each image, so cross-entropy trains for twice the epochs. Two drafts of the
    small budget were dropped before any evidence was kept, on a seed that is not among its seeds: ten epochs, after
    which neither had learned, and the crops of SimCLR, which at 32 pixels often cut the shape away altogether.
    """
    count = budget.pick(smoke=300, small=2000, full=50_000)
    splits = budget.splits(f"shapes:count={count},classes=8", size=32, seed=seed)
    epochs = budget.pick(smoke=1, small=25, full=100)
    options = {
        "backbone": budget.pick(smoke="convnet:width=8", small="convnet:width=8", full="resnet32"),
        "augment": "crop-flip",
        "seed": seed,
        "device": budget.device,
    }
    contrastive = train(splits, loss="supcon", epochs=epochs, **options)
    plain = train(splits, loss="cross-entropy", epochs=2 * epochs, **options)
    return Measured(
        method=probe_accuracy(contrastive, splits),
        baseline=accuracy(plain, splits.test),
        extra={"cross-entropy, linear read-out": probe_accuracy(plain, splits)},
        trivial=majority(splits.test),
    )
