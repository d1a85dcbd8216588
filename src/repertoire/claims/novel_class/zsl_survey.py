"""The claim of *Recent Advances in Zero-shot Recognition* (2017)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.described import (
    LETTERS,
    REDRAWN,
    among_unseen,
    chosen,
    curve,
    letters,
    most_alike,
    ridges,
)
from repertoire.zeroshot import ESZSL, AttributeMatch, EmbeddingRegression


@claim(
    "zsl-survey",
    statement=(
        "A bilinear map to attributes names unseen classes more accurately, by a point, than attributes one by one do."
    ),
    metric="accuracy on unseen letters, among them",
    method="bilinear map",
    baseline="attributes one by one",
    data=LETTERS,
    overlap=REDRAWN,
    tier="real, small",
    threshold=0.01,
    floor=most_alike,
    learned=0.1,
    guard="the nearest mean of the seen classes that share most attributes",
)
def zsl_survey(budget: Budget, seed: int) -> Measured:
    """Fu et al., *Recent Advances in Zero-shot Recognition* (2017), which has no experiment: two of its families of
    maps. `extra` has the third, and what becomes of unseen classes where all classes are allowed."""
    world = letters(budget, seed)
    told = world.descriptions
    bilinear = chosen([ESZSL(ridge=ridge) for ridge in ridges(budget)], world, told)
    single = chosen([AttributeMatch(ridge=ridge) for ridge in ridges(budget)], world, told)
    nearest = chosen([EmbeddingRegression(ridge=ridge) for ridge in ridges(budget)], world, told)
    seen, unseen, _ = curve(bilinear, world).at(0.0)
    return Measured(
        among_unseen(bilinear, world),
        among_unseen(single, world),
        {
            "nearest description": among_unseen(nearest, world),
            "bilinear map, all classes allowed: unseen": unseen,
            "bilinear map, all classes allowed: seen": seen,
        },
    )
