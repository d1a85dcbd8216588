"""The claim of *Continual Learning with Dependency Preserving Hypernetworks* (2022)."""

from __future__ import annotations

from typing import Literal

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims._stages import class_means
from repertoire.claims.beds import LETTERS_REDRAWN, _named
from repertoire.claims.beds import feature_stages as bed
from repertoire.estimators import Hypernetwork

SIZES = {"rnn": 32, "chunked": 65}
"""Hidden units with which both kinds have about as many weights: 10,624 and 10,689."""

STRENGTH = {"rnn": 0.001, "chunked": 0.01}
RATE = 0.02
"""What did best on the first two stages of two pilot seeds: the rate, for both kinds, of 0.001, 0.003, 0.01 and 0.02;
strengths of 0.001, 0.01 and 0.1."""


@arm
def letters(
    budget: Budget,
    seed: int,
    *,
    kind: Literal["rnn", "chunked"],
    strength: float,
    rate: float = RATE,
    until: int | None = None,
) -> dict[str, float]:
    """Letters in stages of four, each with a small classifier whose weights a hypernetwork writes."""
    splits = _named.get("letters").splits(budget, seed)
    model = Hypernetwork(
        kind=kind,
        hidden=SIZES[kind],
        slots=4,
        strength=strength,
        epochs=budget.pick(smoke=1, small=15, full=60),
        rate=rate,
        batch_size=64,
        random_state=seed,
    )
    found = bed.estimated(
        splits, seed, model, step=4, until=budget.pick(smoke=2, small=until or 0, full=until or 0) or None
    )
    return {name: found[name] for name in ("within", "accuracy", "learning")}


def means_of_inputs(budget: Budget, seed: int) -> float:
    """What class means of the inputs keep, where the stage is known."""
    until = budget.pick(smoke=2, small=None, full=None)
    return class_means(_named.get("letters").splits(budget, seed), seed, "classes:step=4", until)["within"]


@claim(
    "rnn-hypernetwork-cl",
    statement=(
        "Of letters that come in stages, classifiers whose weights a recurrent hypernetwork has written are more "
        "accurate in the end, where the stage is known, than those of a hypernetwork of as many weights whose chunks "
        "know nothing of each other, by a point or more."
    ),
    metric="accuracy at the end where the stage is known",
    method="recurrent hypernetwork",
    baseline="chunked hypernetwork",
    data="Letter recognition, 5,000 rows, in stages of four letters",
    bed="letters",
    overlap=LETTERS_REDRAWN,
    threshold=0.01,
    strict=False,
    floor=means_of_inputs,
    learned=0.02,
    guard="class means of the inputs, where the stage is known",
    ceiling=1.0,
)
def recurrent(budget: Budget, seed: int) -> Measured:
    """Hemati et al., *Continual Learning with Dependency Preserving Hypernetworks* (2022), without their penalty on the
    recurrent weights. `extra` has how well each stage was learned when it came, and the recurrent one without the term
    that holds what it wrote."""
    ours, plain = (letters(budget, seed, kind=kind, strength=STRENGTH[kind]) for kind in ("rnn", "chunked"))
    extra = {"free": letters(budget, seed, kind="rnn", strength=0.0)["within"]} if budget.name != "smoke" else {}
    extra |= {"learned when it came": ours["learning"], "chunked: learned when it came": plain["learning"]}
    return Measured(ours["within"], plain["within"], extra)
