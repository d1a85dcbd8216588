"""The claim of *Zero-shot and Few-shot Learning with Knowledge Graphs: A Comprehensive Survey* (2021)."""

from __future__ import annotations

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
from repertoire.zeroshot import ESZSL, FeatureGenerator, GraphPropagation


def _graph(world: World) -> np.ndarray:
    """Classes are joined that have all but one of their attributes in common: what their names say of each other."""
    shared = world.descriptions @ world.descriptions.T
    return (shared == len(world.views) - 1).astype(float)


def _propagated(world: World, told: np.ndarray, graph: np.ndarray, steps: int) -> float:
    """Accuracy of propagation on unseen classes among them, its ridge being that of the map."""
    model = GraphPropagation(steps=steps, hidden=128).fit(world.x, world.y, told, graph=graph)
    scores = model.decision_function(world.test_x[world.new])[:, world.unseen]
    return per_class(world.unseen[scores.argmax(1)], world.test_y[world.new])


@claim(
    "kg-zsl-survey",
    statement=(
        "Classifiers propagated over a graph of classes, made of their attributes, name unseen classes more "
        "accurately, by two percentage points, than a map to the same attributes."
    ),
    metric="accuracy on unseen letters, among them",
    method="propagation over a graph",
    baseline="map to the attributes",
    data=LETTERS,
    overlap=REDRAWN,
    tier="real, small",
    threshold=0.02,
    floor=most_alike,
    learned=0.05,
    guard="the nearest mean of the seen classes that share most attributes",
)
def kg_zsl_survey(budget: Budget, seed: int) -> Measured:
    """Chen et al., *Zero-shot and Few-shot Learning with Knowledge Graphs: A Comprehensive Survey* (2021), which has no
    experiment: three of its four families. Edges are those of names, never of images. `extra` has the same where half
    of what is known of classes is lost to the map and to the vectors, but not to the graph, features that are
    generated, and vectors of random numbers: the graph knows most by itself."""
    world = letters(budget, seed)
    steps = budget.pick(smoke=20, small=300, full=300)
    generator = np.random.default_rng([seed, 2])
    kept = generator.random(world.descriptions.shape) < 0.5
    # A class of which nothing is left still has a description.
    half = np.column_stack([world.descriptions * kept, np.ones(len(world.seen))])
    random = generator.normal(size=half.shape)

    def mapped(told: np.ndarray) -> float:
        return among_unseen(chosen([ESZSL(ridge=ridge) for ridge in ridges(budget)], world, told), world)

    graph = _graph(world)
    generated = chosen([FeatureGenerator(ridge=100 * ridge) for ridge in ridges(budget)], world, half)
    return Measured(
        _propagated(world, world.descriptions, graph, steps),
        mapped(world.descriptions),
        {
            "half, features generated": among_unseen(generated, world),
            "half, propagation over the whole graph": _propagated(world, half, graph, steps),
            "half, map": mapped(half),
            "random vectors, map": mapped(random),
            "random vectors, propagation": _propagated(world, random, graph, steps),
        },
    )
