"""The claim of *Geometry-Aware Adaptation for Pretrained Models* (2023)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.described import World, numbers
from repertoire.zeroshot import frechet_mean

EVERY = np.arange(100)
APART = (EVERY[:, None] // 10 != EVERY // 10).astype(float) + (EVERY[:, None] % 10 != EVERY % 10)
"""In how many digits two numbers differ."""


def _known(generator: np.random.Generator) -> np.ndarray:
    """Numbers that are learned from: each digit is known in both places, three times."""
    tens, ones = generator.permutation(10), generator.permutation(10)
    return np.sort(np.concatenate([10 * tens + np.roll(ones, shift) for shift in range(3)]))


def _far(found: np.ndarray, world: World) -> float:
    return float(np.square(APART[found, world.test_y]).mean())


def raw(budget: Budget, seed: int) -> float:
    """How far the nearest class mean is, or the five nearest neighbours, whichever is nearer: of known numbers, by
    pixels."""
    world = numbers(budget, seed, unseen=0.0)
    mine = np.isin(world.y, _known(np.random.default_rng([seed, 3])))
    models = (NearestCentroid(), KNeighborsClassifier(5))
    return min(_far(model.fit(world.x[mine], world.y[mine]).predict(world.test_x), world) for model in models)


@claim(
    "loki",
    statement=(
        "The Fréchet mean over all classes lies nearer to the true class than the likeliest of the known ones, where "
        "most classes were never trained on."
    ),
    metric="mean squared distance of numbers, in digits that differ",
    method="Fréchet mean",
    baseline="likeliest class",
    data="numbers of two handwritten digits of MNIST, 30 of 100 known",
    tier="real, small",
    threshold=0.05,
    floor=raw,
    learned=0.02,
    guard="the nearest class mean by pixels",
    higher_is_better=False,
)
def loki(budget: Budget, seed: int) -> Measured:
    """Roberts et al., *Geometry-Aware Adaptation for Pretrained Models* (2023). The distance of two numbers is the
    count of digits that differ; the temperature of the classifier is fitted on rows that it has not learned from.
    `extra` has the accuracy on numbers never seen, and distances that were shuffled, under which it must not win."""
    world = numbers(budget, seed, unseen=0.0)
    generator = np.random.default_rng([seed, 3])
    known = _known(generator)
    mine = np.isin(world.y, known)
    rows = np.flatnonzero(mine)
    held = np.arange(len(rows)) % 5 == 4
    scale = np.sqrt(np.square(world.x).sum(1).mean())
    model = LogisticRegression(C=10.0, max_iter=300).fit(world.x[rows[~held]] / scale, world.y[rows[~held]])
    logits = model.decision_function(world.x[rows[held]] / scale)
    labels = np.searchsorted(model.classes_, world.y[rows[held]])

    def loss(log: float) -> float:
        return float(-log_softmax(logits / np.exp(log), 1)[np.arange(len(labels)), labels].mean())

    temperature = float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))
    p = softmax(model.decision_function(world.test_x / scale) / temperature, 1)
    order = generator.permutation(100)
    shuffled = APART[np.ix_(order, order)]
    answers = {
        "mean": frechet_mean(p, APART[:, model.classes_]),
        "plain": model.classes_[p.argmax(1)],
        "shuffled": frechet_mean(p, shuffled[:, model.classes_]),
    }
    far = {name: _far(found, world) for name, found in answers.items()}
    new = ~np.isin(world.test_y, known)
    return Measured(
        far["mean"],
        far["plain"],
        {
            "shuffled distances": far["shuffled"],
            "accuracy on unknown numbers": float((answers["mean"] == world.test_y)[new].mean()),
            "accuracy on known numbers": float((answers["mean"] == world.test_y)[~new].mean()),
            "likeliest class: accuracy on known numbers": float((answers["plain"] == world.test_y)[~new].mean()),
            "temperature": temperature,
        },
    )
