"""The claim of *Self-Supervised Relational Reasoning for Representation Learning* (2020)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_images import DATA, LINEAR, disturbed_images, linear_accuracy, pretrained


@claim(
    "relational-reasoning",
    statement=(
        "A linear probe of features learned by telling views of the same image from others is at least three "
        "percentage points more accurate than one of features learned with SimCLR from as many views."
    ),
    metric=LINEAR,
    method="relational reasoning, four views",
    baseline="SimCLR, two views, twice the epochs",
    data=DATA,
    threshold=0.03,
)
def relational_reasoning(budget: Budget, seed: int) -> Measured:
    """Patacchiola and Storkey, *Self-Supervised Relational Reasoning for Representation Learning* (2020)."""
    data = disturbed_images(budget, seed)
    epochs = budget.pick(smoke=1, small=15, full=200)
    ours = linear_accuracy(pretrained("relational:views=4", data, epochs=epochs, seed=seed), data)
    theirs = linear_accuracy(pretrained("simclr", data, epochs=2 * epochs, seed=seed), data)
    return Measured(ours, theirs)
