"""The claims of *A Closer Look at Rehearsal-Free Continual Learning* (2022)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds import LETTERS_REDRAWN
from repertoire.claims.beds import letter_stages as bed

METHODS = {
    "L2 to the previous weights": "l2-previous:strength=0.01",
    "EWC": "ewc:strength=100,fisher_samples=300",
    "feature distillation": "feature-kd:weight=0.1",
    "answers distilled": "lwf:weight=3",
    "nothing": "supervised",
}
"""Each with the strength that did best on the first two stages of pilot seeds: of 0.001, 0.01, 0.1 and 1 for L2, of 10,
100 and 1,000 for EWC, of 0.1, 1 and 10 for features, and of 0.3, 1, 3 and 10 for answers."""

FIRST, STEP = 11, 5
"""Letters of the first stage, which the network is pretrained on, and of each of the three after it."""


def _measured(budget: Budget, seed: int, name: str, first: int = FIRST) -> dict[str, float]:
    return bed.letters(budget, seed, method=METHODS[name], first=first, step=STEP)


@claim(
    "rehearsal-free-closer-look",
    statement=(
        "A network that has learned eleven letters and then learns five at a time, without earlier ones, knows more of "
        "all of them in the end if its weights are drawn to the previous ones all alike than by elastic weight "
        "consolidation."
    ),
    metric="average accuracy over stages at the end",
    method="L2 to the previous weights",
    baseline="elastic weight consolidation",
    data=bed.LETTERS,
    bed="letters",
    overlap=LETTERS_REDRAWN,
    threshold=0.01,
    floor=bed.unprotected,
    learned=0.02,
    guard="a network that nothing protects, which learned each stage better than class means of the inputs do",
)
def closer_look(budget: Budget, seed: int) -> Measured:
    """Smith et al., *A Closer Look at Rehearsal-Free Continual Learning* (2022), whose networks were pretrained on
    ImageNet; here the first stage is what was learned before.

    `extra` has the other methods, and how much each forgets. Class means of the inputs, gathered stage by stage, keep
    0.55 on pilot seeds, as much as the best of these; the letters of a stage that has just come they name less often
    (0.61) than a network that nothing protects (0.95), which is what there is to forget.
    """
    found = {name: _measured(budget, seed, name) for name in METHODS}
    extra = {name: found[name]["accuracy"] for name in list(METHODS)[2:]}
    extra |= {f"{name}: forgotten": each.get("forgetting", 0.0) for name, each in found.items()}
    ours, theirs = (found[name] for name in list(METHODS)[:2])
    return Measured(ours["accuracy"], theirs["accuracy"], extra)


@claim(
    "rehearsal-free-closer-look",
    part="features",
    statement=(
        "A network that has learned eleven letters and then learns five at a time, without earlier ones, knows more of "
        "all of them in the end if its weights are drawn to the previous ones than if its features are."
    ),
    metric="average accuracy over stages at the end",
    method="L2 to the previous weights",
    baseline="feature distillation",
    data=bed.LETTERS,
    bed="letters",
    overlap=LETTERS_REDRAWN,
    threshold=0.01,
    floor=bed.unprotected,
    learned=0.02,
    guard="a network that nothing protects, which learned each stage better than class means of the inputs do",
)
def features(budget: Budget, seed: int) -> Measured:
    """Smith et al., *A Closer Look at Rehearsal-Free Continual Learning* (2022)."""
    ours, theirs = (_measured(budget, seed, name) for name in ("L2 to the previous weights", "feature distillation"))
    return Measured(ours["accuracy"], theirs["accuracy"])
