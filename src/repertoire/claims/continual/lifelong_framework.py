"""The claim of *A Deep Learning Framework for Lifelong Machine Learning* (2021)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds import letter_stages as bed

OURS = "consolidation:strength=0.01,freeze=head,decay=0"
FISHER = "consolidation:strength=50,freeze=head,importance=fisher,fisher_samples=300"
UNIFORM = "l2-previous:strength=0.01"
INFORMED = "ewc:strength=100,fisher_samples=300"
"""With the strengths that did best for L2 (of 0.001, 0.01, 0.1 and 1) and EWC (of 10, 100 and 1,000) on the first two
stages of pilot seeds; frozen rows are all that is more."""


@claim(
    "lifelong-framework",
    statement=(
        "A network that learns letters in stages knows more of all of them in the end if old rows of its head are "
        "frozen and its other weights protected than if all weights are drawn to the previous ones alike, by a point "
        "or more."
    ),
    metric="average accuracy over stages at the end",
    method="frozen, protected and free weights",
    baseline="all weights protected alike",
    data=bed.LETTERS,
    bed="letters",
    threshold=0.01,
    strict=False,
    learned=0.1,
)
def lifelong(budget: Budget, seed: int) -> Measured:
    """Ling and Bohn, *A Deep Learning Framework for Lifelong Machine Learning* (2021), who show toy experiments.

    `extra` has the same with the Fisher information in the protected part, elastic weight consolidation, a network that
    is all free, what is forgotten, and the same with protection that grows with every stage ("without decay").
    """
    ours, uniform = (bed.letters(budget, seed, method=method) for method in (OURS, UNIFORM))
    others = {
        "with Fisher information": FISHER,
        "EWC": INFORMED,
        "all free": "supervised",
        "without decay": "consolidation:strength=0.01,freeze=head",
    }
    extra: dict[str, float] = {}
    for name, method in others.items():
        found = bed.letters(budget, seed, method=method)
        extra |= {name: found["accuracy"], f"{name}: forgotten": found["forgetting"]}
    extra |= {"forgotten": ours["forgetting"], "protected alike: forgotten": uniform["forgetting"]}
    return Measured(ours["accuracy"], uniform["accuracy"], extra, trivial=ours["chance"])
