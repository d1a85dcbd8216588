"""Claims that cost nothing, in a module that worker processes can import."""

from __future__ import annotations

import os

from repertoire.claims import Budget, Measured, claim
from repertoire.errors import UnknownName

OPTIONS = {"metric": "value", "method": "ours", "baseline": "theirs", "data": "none", "threshold": 0.0}


@claim("toy-better", statement="Ours is more.", **OPTIONS)
def better(budget: Budget, seed: int) -> Measured:
    import torch

    noise = 0.1 * torch.rand(()).item()
    threads = float(torch.get_num_threads())
    return Measured(
        2.0 + noise, 1.0, {"noise": noise, "threads": threads, "work": budget.pick(smoke=1.0, small=2.0, full=3.0)}
    )


@claim("toy-smaller", statement="Ours is less.", higher_is_better=False, seeds={"small": 3}, **OPTIONS)
def smaller(budget: Budget, seed: int) -> Measured:
    return Measured(2.0, 1.0 + 0.01 * seed)


@claim("toy-failing", statement="Ours runs.", **OPTIONS)
def failing(budget: Budget, seed: int) -> Measured:
    if seed == 2:
        raise ZeroDivisionError("nothing to divide by")
    return Measured(1.0, 0.0)


@claim("toy-nan", statement="Ours is a number.", **OPTIONS)
def not_a_number(budget: Budget, seed: int) -> Measured:
    return Measured(float("nan"), 0.0)


@claim("toy-killed", statement="Ours survives.", **OPTIONS)
def killed(budget: Budget, seed: int) -> Measured:
    os._exit(1)


@claim("toy-unknown", statement="Ours is known.", **OPTIONS)
def unknown(budget: Budget, seed: int) -> Measured:
    raise UnknownName("thing", "thingy", ["thing"])
