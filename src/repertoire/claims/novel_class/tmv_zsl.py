"""The claim of *Transductive Multi-view Zero-Shot Learning* (2015)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.described import (
    LETTERS,
    REDRAWN,
    World,
    among_unseen,
    chosen,
    letters,
    most_alike,
    per_class,
    ridges,
)
from repertoire.zeroshot import EmbeddingRegression, MultiViewPropagation, held_out

WIDTH = 30
"""Principal directions of the character sequences of names."""

SPREADS = ((0.1, 4.0), (1.0, 1.0), (10.0, 1.0))
"""Ridge and power of the common space to choose from, as many as the baseline has."""


def _spelt(names: Sequence[str]) -> np.ndarray:
    """Names by the sequences of up to three characters in them, float `[C, WIDTH]`: a view beside the attributes."""
    counted = [Counter(name[i : i + n] for n in (1, 2, 3) for i in range(len(name) - n + 1)) for name in names]
    parts = sorted({part for count in counted for part in count})
    table = np.array([[count[part] for part in parts] for count in counted], dtype=np.float64)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(table - table.mean(0), full_matrices=False)
    spelt: np.ndarray = left[:, :WIDTH] * values[:WIDTH]
    return spelt


def _chosen(world: World, told: np.ndarray, views: tuple[int, ...], several: bool) -> MultiViewPropagation:
    """The space in which classes that are held out of the seen ones are named best."""
    models = [MultiViewPropagation(views=views, neighbours=4, spread=spread, power=power) for spread, power in SPREADS]
    if not several:
        return models[0]
    right = np.zeros(len(models))
    for part in held_out(world.y, 3):
        for number, model in enumerate(models):
            model.fit(world.x[part.fitted], world.y[part.fitted], told)
            found = part.classes[model.predict(world.x[part.unseen], told[part.classes])]
            right[number] += per_class(found, world.y[part.unseen])
    return models[int(right.argmax())]


def _transduced(world: World, told: np.ndarray, views: tuple[int, ...], several: bool) -> float:
    """Accuracy on unseen classes among them, all rows of these being looked at together."""
    model = _chosen(world, told, views, several).fit(world.x, world.y, told)
    asked = np.concatenate([world.test_x[world.new], world.more_x])
    found = model.predict(asked, told[world.unseen])[: world.new.sum()]
    return per_class(world.unseen[found], world.test_y[world.new])


@claim(
    "tmv-zsl",
    statement=(
        "Label propagation over several views, fitted to the unlabelled rows of unseen classes, names these more "
        "accurately than the nearest description does."
    ),
    metric="accuracy on unseen letters in unseen styles, among them",
    method="several views, propagated",
    baseline="nearest description",
    data=LETTERS,
    overlap=REDRAWN,
    tier="real, small",
    threshold=0.02,
    floor=most_alike,
    learned=0.1,
    guard="the nearest mean of the seen classes that share most attributes",
    ceiling=1.0,
)
def tmv_zsl(budget: Budget, seed: int) -> Measured:
    """Fu et al., *Transductive Multi-view Zero-Shot Learning* (2015). Views are the attributes and the spelling of the
    names. It is given unlabelled rows of unseen classes, those of the test included, which the baseline does not look
    at: that is the setting of the paper. `extra` has the attributes alone."""
    world = letters(budget, seed)
    spelt = _spelt(world.names)
    told = np.concatenate([world.descriptions, spelt], 1)
    nearest = chosen([EmbeddingRegression(ridge=ridge) for ridge in ridges(budget)], world, world.descriptions)
    several = budget.name != "smoke"
    return Measured(
        _transduced(world, told, (world.descriptions.shape[1], spelt.shape[1]), several),
        among_unseen(nearest, world),
        {"attributes alone, propagated": _transduced(world, world.descriptions, (), several)},
    )
