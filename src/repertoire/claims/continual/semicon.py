"""The claim of *Contrastive Learning for Online Semi-Supervised General Continual Learning* (2022)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.image_stages import DIGITS, digits

SHARE = 0.026
"""Of the samples of a stage whose label is asked for: as in the paper on CIFAR-10."""
RATIO = 5.0


@claim(
    "semicon",
    statement=(
        "Seen once, with labels for one in forty images and for a memory of 50, a stream of five stages of two digits "
        "is told apart more accurately, by more than two percentage points, where one contrastive loss learns from "
        "images without a label too than where it learns from those with one alone."
    ),
    metric="accuracy on all classes after the last stage",
    method="SemiCon",
    baseline="SupCon replay, labelled images alone",
    data=DIGITS,
    tier="real, small",
    threshold=0.02,
    learned=0.1,
    own_data=True,
)
def semicon(budget: Budget, seed: int) -> Measured:
    """Michel et al., *Contrastive Learning for Online Semi-Supervised General Continual Learning* (2022).

    Neither arm is good: the means of all raw images of a class, which nothing can forget, name 0.81 of the digits. What
    is told is whether images without a label help to hold on.
    """
    base = f"semicon:share={SHARE},ratio={RATIO}"
    ours, theirs = (digits(budget, seed, method=base + more) for more in ("", ",unlabelled=false"))
    negatives = digits(budget, seed, method=f"{base},alpha=0")
    full = digits(budget, seed, method=f"semicon:share=1,ratio={RATIO}")
    extra = {"alpha = 0": negatives["accuracy"], "all labels": full["accuracy"], "forgetting": ours["forgetting"]}
    return Measured(ours["accuracy"], theirs["accuracy"], extra, trivial=ours["chance"])
