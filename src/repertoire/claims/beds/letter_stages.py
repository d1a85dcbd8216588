"""Letters whose classes come in stages: a network of one hidden layer that has learned many of them first.

The order of the letters, the division of the rows, the weights and the order of rows are the seed's. Strengths are
those that did best on the first two stages of pilot seeds, from as many values for each method.
"""

from __future__ import annotations

from repertoire.claims import Budget, arm
from repertoire.claims._stages import before_forgetting, class_means, staged
from repertoire.claims.beds import _named

LETTERS = "Letter recognition, 5,000 rows, whose classes come in stages"


@arm
def letters(
    budget: Budget,
    seed: int,
    *,
    method: str,
    first: int = 11,
    step: int = 5,
    until: int | None = None,
    epochs: int = 10,
) -> dict[str, float]:
    """A network of one hidden layer after stages of letters, trained by a method of continual learning.

    Args:
        method: spec.
        first: letters of the first stage.
        step: letters of each of the others.
        until: how many stages; all if None.
        epochs: of each stage.
    """
    first, step = budget.pick(smoke=(4, 3), small=(first, step), full=(first, step))
    return staged(
        budget,
        seed,
        splits=_named.get("letters").splits(budget, seed),
        method=method,
        protocol=f"classes:first={first},step={step},memory=0",
        until=budget.pick(smoke=2, small=until or 0, full=until or 0) or None,
        backbone="mlp:hidden=256",
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.0,
        schedule="constant",
        warmup=0,
        batch_size=64,
        epochs=budget.pick(smoke=1, small=epochs, full=2 * epochs),
    )


def unprotected(budget: Budget, seed: int) -> float:
    """The trivial answer of claims about methods that keep no sample and forget much: what a network that nothing
    protects knows in the end, which is the last stage.

    Class means of the inputs, which nothing can forget, are no such answer: with 0.55 on pilot seeds they keep as much
    as the best of these methods. But the network must have learned each stage better than they do, when it came.
    """
    first, step = budget.pick(smoke=(4, 3), small=(11, 5), full=(11, 5))
    free = letters(budget, seed, method="supervised")
    until = budget.pick(smoke=2, small=None, full=None)
    means = class_means(_named.get("letters").splits(budget, seed), seed, f"classes:first={first},step={step}", until)
    return before_forgetting([free], means, free["accuracy"])
