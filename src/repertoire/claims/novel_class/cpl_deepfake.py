"""The claim of *Contrastive Pseudo Learning for Open-World DeepFake Attribution* (2023), about fonts."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds import new_classes as bed

OURS = "contrastive-pseudo:epochs=30"


@arm
def attributed(budget: Budget, seed: int, *, method: str) -> dict[str, float]:
    """Fonts of letters: `all`, `old` and `new` accuracy of a discoverer that is told how many fonts there are."""
    task = bed.fonts(budget, seed)
    found = bed.grouped(bed.quick(budget, method), task, seed, task.classes)
    return bed.accuracies(found.labels_, task)


def clustered(budget: Budget, seed: int) -> float:
    """What k-means of the last maps scores."""
    return bed.clustered(bed.fonts(budget, seed), seed)["all"]


@claim(
    "cpl-deepfake",
    statement=(
        "Which font a letter is from, known or new, is told more accurately where pairs need the votes of whole images "
        "and of their patches, and soft answers count as much as they are sure, than with votes of whole images and "
        "hard answers above a threshold."
    ),
    metric="accuracy on letters without a label",
    method="both votes, soft answers",
    baseline="votes of whole images, hard answers",
    data="letters of fonts, last maps of a pretrained network: half of the fonts known, by half of the letters",
    bed="glyphs",
    threshold=0.01,
    floor=clustered,
    learned=0.02,
    guard="k-means of the last maps as they come, told the true number of fonts",
    ceiling=1.0,
)
def cpl(budget: Budget, seed: int) -> Measured:
    """Sun et al., *Contrastive Pseudo Learning for Open-World DeepFake Attribution* (2023), with fonts in the place of
    forgers. `extra` has the old and the new fonts apart, and each change alone."""
    ours = attributed(budget, seed, method=OURS)
    theirs = attributed(budget, seed, method=OURS + ",votes=global,soft=false")
    votes = attributed(budget, seed, method=OURS + ",soft=false")
    soft = attributed(budget, seed, method=OURS + ",votes=global")
    extra = {
        **bed.scores(ours, ("old", "new"), "both: "),
        **bed.scores(theirs, ("old", "new"), "whole, hard: "),
        "both votes, hard answers": votes["all"],
        "votes of whole images, soft answers": soft["all"],
    }
    return Measured(ours["all"], theirs["all"], extra)
