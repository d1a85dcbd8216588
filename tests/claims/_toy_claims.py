"""Claims that cost nothing, in a module that worker processes can import."""

from __future__ import annotations

import os
import random

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


@claim("toy-smaller", statement="Ours is less.", higher_is_better=False, **OPTIONS)
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


@claim("toy-noisy", statement="Ours is more, now and then.", **OPTIONS)
def noisy(budget: Budget, seed: int) -> Measured:
    return Measured((-1.0) ** seed + 0.01 * seed, 0.0)


@claim("toy-weak", statement="Ours learns.", trivial=0.3, learned=0.1, **OPTIONS)
def weak(budget: Budget, seed: int) -> Measured:
    return Measured(0.9 + 0.001 * seed, 0.35)


@claim("toy-full", statement="Ours is better still.", ceiling=1.0, effect=0.05, **OPTIONS)
def full(budget: Budget, seed: int) -> Measured:
    return Measured(0.99, 0.97)


@claim("toy-weak", part="beside", statement="Ours is the same.", kind="equivalent", **{**OPTIONS, "threshold": 0.1})
def same(budget: Budget, seed: int) -> Measured:
    return Measured(0.5 + 0.001 * random.random(), 0.5)


@claim("toy-identity", statement="They are equal.", kind="identity", exact=True, **{**OPTIONS, "threshold": 1e-6})
def identity(budget: Budget, seed: int) -> Measured:
    return Measured(1e-9)


@claim(
    "toy-trend",
    statement="More gives more.",
    metric="value",
    arms=("one", "two", "four"),
    points=(1, 2, 4),
    kind="trend",
    data="none",
    own_data=True,
)
def trend(budget: Budget, seed: int) -> Measured:
    from repertoire import registry

    registry.build("heads", "linear", in_features=2, num_classes=2)
    return Measured.of([0.1, 0.2 + 0.01 * (seed % 3), 0.4], {"source": float(bool(budget.data))})


@claim("toy-draws", statement="Ours is more, in the mean of draws.", draws=4, **OPTIONS)
def drawn_often(budget: Budget, seed: int) -> Measured:
    return Measured(float(seed), 1.0, {"twice": 2.0 * seed}, trivial=0.5 * seed, values=(float(seed), 1.0))


@claim("toy-draws-of-images", statement="Ours is more, image by image.", draws=2, **OPTIONS)
def drawn_images(budget: Budget, seed: int) -> Measured:
    return Measured(1.0, 0.0, units=(0.5, 1.0))


TOYS = (
    better, smaller, failing, not_a_number, killed, unknown, noisy, weak, full, same, identity, trend, drawn_often,
    drawn_images,
)  # fmt: skip
