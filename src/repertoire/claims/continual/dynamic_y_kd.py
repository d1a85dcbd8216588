"""The claim of *Dynamic Y-KD: A Hybrid Approach to Continual Instance Segmentation* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds import LETTERS_REDRAWN
from repertoire.claims.beds import letter_stages as bed

OURS = "y-distil:weight=1"
THEIRS = "lwf:weight=3"
"""Each with the weight, of 0.1, 1 and 10, or of 0.3, 1, 3 and 10, that did best on the first two stages of pilot seeds.
With the old head as its teacher, all letters so far compete, as the student of the paper scores all of them; a frozen
copy teaches where those of a stage compete among themselves, as Li and Hoiem (2017) have it. Among all letters, where
this had been decided, the copy kept nothing: 0.233, and a network that nobody teaches 0.238."""


@claim(
    "dynamic-y-kd",
    statement=(
        "A network that learns letters in stages knows more of all of them in the end if the old head teaches on the "
        "features that are being learned than if a frozen copy of the old network teaches, by a point or more."
    ),
    metric="average accuracy over stages at the end",
    method="Y distillation",
    baseline="distillation from a frozen copy",
    data=bed.LETTERS,
    bed="letters",
    overlap=LETTERS_REDRAWN,
    threshold=0.01,
    strict=False,
    floor=bed.unprotected,
    learned=0.02,
    guard="a network that nothing protects, which learned each stage better than class means of the inputs do",
)
def y_kd(budget: Budget, seed: int) -> Measured:
    """Pagé Fortin and Chaib-draa, *Dynamic Y-KD: A Hybrid Approach to Continual Instance Segmentation* (2023), of
    classes instead of instances. The paper gains on old classes in some settings and on new ones in others; the mean
    over stages has both, and weighs them alike.

    The trivial answer is a network that nobody teaches, which knows the last stage. Class means of the inputs keep more
    than either arm (0.55 on pilot seeds), but had less to forget. `extra` has how well stages were learned and how much
    of them was forgotten, the same with weights that go half-way back ("alpha 0.5"), and bytes kept beside the network.
    """
    found = {
        name: bed.letters(budget, seed, method=method)
        for name, method in {"y": OURS, "copy": THEIRS, "alpha 0.5": f"{OURS},alpha=0.5"}.items()
    }
    extra = {"alpha 0.5": found["alpha 0.5"]["accuracy"]}
    for name, each in found.items():
        extra |= {f"{name}: learned": each["learning"], f"{name}: forgotten": each["forgetting"]}
        extra[f"{name}: bytes"] = each["state_bytes"]
    return Measured(found["y"]["accuracy"], found["copy"]["accuracy"], extra)
