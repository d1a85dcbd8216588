"""How well every zero-shot classifier names classes that it saw, and classes that it was only told of.

    python benchmarks/zeroshot.py [--seeds 3] [--only letters,numbers] [--threads 1]

The beds are those of the claims: accented Latin letters of fonts that were not learned from, as features of lite0,
described by base letter, case and mark; and numbers of two handwritten digits, as principal components of their pixels,
described by their digits. A fifth of the classes, drawn by the seed, has no row. The strength of the penalty of each
classifier is one of three, chosen by classes held out of the seen ones, and so is the constant that is taken from the
scores of seen classes; graphs and propagation have their defaults. Nothing is chosen by unseen classes. Propagation
looks at all test rows together. Prints Markdown.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from repertoire.claims import Budget
from repertoire.claims.beds.described import LETTERS, NUMBERS, RIDGES, World, chosen, letters, numbers, per_class
from repertoire.errors import plural
from repertoire.zeroshot import (
    COSMO,
    ESZSL,
    AttributeMatch,
    EmbeddingRegression,
    FeatureGenerator,
    GraphPropagation,
    MultiViewPropagation,
    ZeroShotClassifier,
    choose_gamma,
    seen_unseen,
)

BEDS = {"letters": (LETTERS, letters), "numbers": (NUMBERS, numbers)}


def candidates() -> dict[str, list[ZeroShotClassifier]]:
    """Classifiers with three strengths of their penalty; what takes longer has its defaults, and COSMO the expert that
    was chosen."""
    return {
        "attribute-match": [AttributeMatch(ridge=ridge) for ridge in RIDGES],
        "embedding-regression": [EmbeddingRegression(ridge=ridge) for ridge in RIDGES],
        "eszsl": [ESZSL(ridge=ridge) for ridge in RIDGES],
        "graph-propagation": [GraphPropagation(hidden=128)],
        "feature-generator": [FeatureGenerator(ridge=10 * ridge) for ridge in RIDGES],
        "multi-view-propagation": [MultiViewPropagation(neighbours=4)],
    }


def measure(world: World, model: ZeroShotClassifier) -> list[float]:
    """Accuracy among unseen classes; seen, unseen and harmonic mean with all allowed, without and with a constant; and
    the area."""
    new, unseen = world.new, world.unseen
    if model.transductive:
        alone = model.decision_function(world.test_x[new], world.descriptions[unseen])
    else:
        alone = model.decision_function(world.test_x[new])[:, unseen]
    curve = seen_unseen(model.decision_function(world.test_x), world.test_y, world.seen)
    gamma = 0.0 if model.calibrated else choose_gamma(model, world.x, world.y, world.descriptions)
    among = per_class(unseen[alone.argmax(1)], world.test_y[new])
    return [among, *curve.at(0.0), *curve.at(gamma), curve.area]


def fitted(name: str, world: World) -> ZeroShotClassifier:
    """The classifier of a name, its strength chosen; the expert of a gate is the one that was chosen by itself."""
    if name == "cosmo":
        ridge = fitted("eszsl", world).get_params()["ridge"]
        return COSMO(f"eszsl:ridge={ridge:g}").fit(world.x, world.y, world.descriptions)
    return chosen(candidates()[name], world, world.descriptions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default=",".join(BEDS))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for bed in arguments.only.split(","):
        title, make = BEDS[bed]
        worlds = [make(Budget("small"), seed) for seed in range(arguments.seeds)]
        first = worlds[0]
        print(
            f"{title[0].upper()}{title[1:]}: {len(first.seen)} classes, {len(first.unseen)} of them unseen, "
            f"{len(first.x)} rows to learn from, {plural(arguments.seeds, 'seed')}; per cent, the area from 0 to 1\n"
        )
        print(
            "| classifier | unseen among unseen | all allowed: seen, unseen, harmonic | with a constant: seen, unseen, "
            "harmonic | AUSUC | CPU seconds |"
        )
        print("|---|---|---|---|---|---|", flush=True)
        for name in (*candidates(), "cosmo"):
            start = time.process_time()
            mean = np.mean([measure(world, fitted(name, world)) for world in worlds], 0)
            seconds = (time.process_time() - start) / len(worlds)
            plain, stacked = (", ".join(f"{100 * v:.0f}" for v in mean[i : i + 3]) for i in (1, 4))
            stacked = "its own gate" if name == "cosmo" else stacked
            print(f"| {name} | {100 * mean[0]:.0f} | {plain} | {stacked} | {mean[7]:.3f} | {seconds:.1f} |", flush=True)
        print()


if __name__ == "__main__":
    main()
