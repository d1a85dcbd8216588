"""The claim of *GSV-Cities: Toward Appropriate Supervised Visual Place Recognition* (2022)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import DRAWINGS, retrieved


@claim(
    "gsv-cities",
    statement=(
        "The multi-similarity loss with its pair mining makes better embeddings of unseen classes than the triplet "
        "loss with the hardest triplet of each anchor."
    ),
    metric="MAP@R among unseen characters",
    method="multi-similarity",
    baseline="batch-hard triplets, soft margin",
    data=DRAWINGS,
    bed="omniglot-all",
    threshold=0.01,
    learned=0.01,
)
def gsv_cities(budget: Budget, seed: int) -> Measured:
    """Ali-bey, Chaib-draa and Giguère, *GSV-Cities: Toward Appropriate Supervised Visual Place Recognition* (2022): the
    loss that served best there, in batches of four samples a class, on classes in place of places.
    """
    mined = retrieved(budget, seed, loss="multi-similarity", rate=3e-4)
    hard = retrieved(budget, seed, loss="triplet", rate=1e-3, nearness="euclidean")
    return Measured(mined["MAP@R"], hard["MAP@R"], trivial=hard["untrained: MAP@R"])
