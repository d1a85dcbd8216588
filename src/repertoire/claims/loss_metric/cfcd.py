"""The claim of *Coarse-to-Fine: Learning Compact Discriminative Representation for Single-Stage Image Retrieval*
(2023).
"""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import DRAWINGS, retrieved


@claim(
    "cfcd",
    statement=(
        "A scale and a margin that follow the batch make a better embedding for the retrieval of unseen classes than "
        "the fixed ones of ArcFace."
    ),
    metric="MAP@R among unseen characters",
    method="MadaCos",
    baseline="ArcFace with scale 64 and margin 0.5",
    data=DRAWINGS,
    bed="omniglot-all",
    threshold=0.005,
    learned=0.005,
)
def cfcd(budget: Budget, seed: int) -> Measured:
    """Zhu et al., *Coarse-to-Fine: Learning Compact Discriminative Representation* (2023): the loss of its first stage,
    with its constants.

    `extra` has CosFace with the constants of its paper, and a plain cosine classifier.
    """
    ours, theirs = (retrieved(budget, seed, head=head, rate=1e-3)["MAP@R"] for head in ("madacos", "arcface"))
    cosine = retrieved(budget, seed, head="cosine", rate=1e-3)
    extra = {
        "CosFace": retrieved(budget, seed, head="cosface", rate=1e-3)["MAP@R"],
        "cosine classifier": cosine["MAP@R"],
    }
    return Measured(ours, theirs, extra, trivial=cosine["untrained: MAP@R"])
