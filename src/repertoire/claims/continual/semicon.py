"""The claim of *Contrastive Learning for Online Semi-Supervised General Continual Learning* (2022)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.image_stages import STREAM, raw_of_labelled, streamed

SHARE = 0.026
"""Of the samples of a stage whose label is asked for: as in the paper on CIFAR-10."""
RATIO = 5.0


@claim(
    "semicon",
    statement=(
        "Seen once, with labels for one in forty photographs and for a memory of 200, a stream of five stages of two "
        "classes is told apart more accurately, by more than two percentage points, where one contrastive loss learns "
        "from images without a label too than where it learns from those with one alone."
    ),
    metric="accuracy on all classes after the last stage",
    method="SemiCon",
    baseline="SupCon replay, labelled images alone",
    data=STREAM,
    bed="cifar10",
    threshold=0.02,
    floor=raw_of_labelled,
    learned=0.01,
    own_data=True,
)
def semicon(budget: Budget, seed: int) -> Measured:
    """Michel et al., *Contrastive Learning for Online Semi-Supervised General Continual Learning* (2022).

    The trivial answer is of the raw photographs that have had a label. Until photographs took their place, digits of
    MNIST were the bed, of which class means of eight labelled images tell more (0.72) than either arm (0.63 and 0.64).
    Of learning rates of 0.001, 0.003 and 0.01 the second did best on pilot seed 1000, for SemiCon (0.280, 0.282 and
    0.242) and for labelled images alone (0.292, 0.303 and 0.273); seed 1001 gave 0.309 and 0.326 with it, and the
    labelled photographs by their pixels tell 0.24. `extra` has samples without a label as negatives alone, and what is
    forgotten.
    """
    base = f"semicon:share={SHARE},ratio={RATIO}"
    ours, theirs = (streamed(budget, seed, method=base + more) for more in ("", ",unlabelled=false"))
    negatives = streamed(budget, seed, method=f"{base},alpha=0")
    extra = {"alpha = 0": negatives["accuracy"], "forgetting": ours["forgetting"]}
    return Measured(ours["accuracy"], theirs["accuracy"], extra)
