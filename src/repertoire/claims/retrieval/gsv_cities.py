"""The claim of *GSV-Cities: Toward Appropriate Supervised Visual Place Recognition* (2022)."""

from __future__ import annotations

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_embedding, recall_at_one
from repertoire.claims.beds.places import seen_places


@claim(
    "gsv-cities",
    statement=(
        "The multi-similarity loss with its pair mining makes better embeddings of unseen classes than the "
        "contrastive loss with margins."
    ),
    metric="recall at 1 among test images of 16 unseen classes",
    method="multi-similarity",
    baseline="contrastive loss",
    data="40 classes: digits in four turns; those of four digits are unseen",
    threshold=0.0,
)
def gsv_cities(budget: Budget, seed: int) -> Measured:
    """Ali-bey, Chaib-draa and Giguère, *GSV-Cities: Toward Appropriate Supervised Visual Place Recognition* (2022): the
    loss that served best there, in batches of four samples a class, on classes in place of places.

    `extra` has multi-similarity on all pairs, without mining.
    """
    inputs, labels, test_inputs, test_labels = seen_places(seed)
    epochs = budget.pick(smoke=1, small=20, full=100)
    found = [
        recall_at_one(
            fit_embedding(loss, inputs, labels, epochs=epochs, seed=seed, per_class=4), test_inputs, test_labels
        )
        for loss in (
            losses.MultiSimilarity(),
            losses.Contextual(contextual=0.0, regularisation=0.0),
            losses.MultiSimilarity(epsilon=None),
        )
    ]
    return Measured(found[0], found[1], {"without mining": found[2]})
