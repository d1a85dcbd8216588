"""The claim of *MDCS: More Diverse Experts with Consistency Self-distillation for Long-tailed Recognition* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.long_tail import BED, raw, tailed


@claim(
    "mdcs",
    statement=(
        "Three experts that lean towards frequent and rare classes and distil their own sure answers know all classes "
        "better, on average, than a single classifier with logit adjustment and as many weights."
    ),
    metric="mean of the classes' test accuracies",
    method="three experts, self-distillation",
    baseline="one classifier, logit adjustment",
    bed=BED,
    threshold=0.005,
    learned=0.0,
    floor=raw,
    ceiling=1.0,
)
def mdcs(budget: Budget, seed: int) -> Measured:
    """Zhao et al., *MDCS: More Diverse Experts with Consistency Self-distillation for Long-tailed Recognition* (2023),
    on features: ratio 10, and noise in the place of strong augmentation, which all arms get. The single classifier has
    a hidden layer as wide as those of the experts together.

    `extra` has experts without self-distillation, and the rare classes alone.
    """
    three, one = "experts:count=3,hidden=64", "experts:count=1,hidden=192"
    ours = tailed(budget, seed, method="experts:count=3", head=three, rate=3e-3)
    single = tailed(budget, seed, method="experts:count=1,distil=0", head=one, rate=1e-3)
    diverse = tailed(budget, seed, method="experts:count=3,distil=0", head=three, rate=3e-3)
    return Measured(
        ours["balanced accuracy"],
        single["balanced accuracy"],
        {
            "experts without self-distillation": diverse["balanced accuracy"],
            "rare classes: three experts": ours["rare"],
            "rare classes: one classifier": single["rare"],
        },
    )
