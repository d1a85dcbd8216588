"""The claims of *An Empirical Study and Analysis of Generalized Zero-Shot Learning* (2016)."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.described import LETTERS, NUMBERS, REDRAWN, chosen, curve, letters, numbers, ridges
from repertoire.zeroshot import ESZSL, choose_gamma, seen_unseen


def by_neighbours(budget: Budget, seed: int) -> float:
    """The harmonic mean of a rule without learning: the five nearest known rows lend a row the mean of their
    descriptions, and it is of the class whose description is nearest to that, with the constant for seen classes that
    is best for the test."""
    world = letters(budget, seed)
    near = NearestNeighbors(n_neighbors=5).fit(world.x).kneighbors(world.test_x, return_distance=False)
    lent = world.descriptions[world.y[near]].mean(1)
    apart = np.square(lent[:, None] - world.descriptions[None]).sum(2)
    return float(seen_unseen(-apart, world.test_y, world.seen).harmonic.max())


@claim(
    "calibrated-stacking",
    statement=(
        "A constant taken from the scores of seen classes, chosen on seen classes held out, gives a better harmonic "
        "mean of the accuracies on seen and unseen classes."
    ),
    metric="harmonic mean of seen and unseen accuracy",
    method="calibrated stacking",
    baseline="highest score",
    data=LETTERS,
    overlap=REDRAWN,
    tier="real, small",
    threshold=0.02,
    ceiling=1.0,
    learned=0.02,
    floor=by_neighbours,
    guard="the class whose description is nearest to those of the five nearest rows, with the best constant",
)
def balance(budget: Budget, seed: int) -> Measured:
    """Chao et al., *An Empirical Study and Analysis of Generalized Zero-Shot Learning for Object Recognition in the
    Wild* (2016). `extra` has both accuracies, and what the best constant of the test would give."""
    world = letters(budget, seed)
    model = chosen([ESZSL(ridge=ridge) for ridge in ridges(budget)], world, world.descriptions)
    gamma = choose_gamma(model, world.x, world.y, world.descriptions)
    found = curve(model, world)
    plain, stacked = found.at(0.0), found.at(gamma)
    return Measured(
        stacked[2],
        plain[2],
        {
            "highest score: seen": plain[0],
            "highest score: unseen": plain[1],
            "stacked: seen": stacked[0],
            "stacked: unseen": stacked[1],
            "best constant of the test": float(found.harmonic.max()),
            "AUSUC": found.area,
        },
    )


@claim(
    "calibrated-stacking",
    part="descriptions",
    statement="Class means of features, as idealised descriptions, give a larger area than attributes do.",
    metric="area under the seen-unseen curve",
    method="class means as descriptions",
    baseline="attributes",
    data=NUMBERS,
    overlap=REDRAWN,
    tier="real, small",
    threshold=0.02,
    learned=0.05,
    trivial=0.0,
    ceiling=1.0,
    guard="any classifier of the seen classes alone, which has no area",
)
def descriptions(budget: Budget, seed: int) -> Measured:
    """What descriptions could be worth at best, as the paper measures it: the means are those of test rows, of unseen
    classes too, which is no method but a bound."""
    world = numbers(budget, seed)
    ideal = np.stack([world.test_x[world.test_y == c].mean(0) for c in range(len(world.seen))])
    ideal = ideal - ideal.mean(0)
    areas = [
        curve(chosen([ESZSL(ridge=ridge) for ridge in ridges(budget)], world, told), world).area
        for told in (ideal, world.descriptions)
    ]
    return Measured(areas[0], areas[1])
