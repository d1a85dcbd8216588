"""The claims of *An Empirical Study and Analysis of Generalized Zero-Shot Learning* (2016)."""

from __future__ import annotations

import numpy as np

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.described import LETTERS, NUMBERS, REDRAWN, chosen, curve, letters, numbers, ridges
from repertoire.zeroshot import ESZSL, choose_gamma


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
