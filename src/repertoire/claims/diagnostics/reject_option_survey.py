"""The claim of *Machine Learning with a Reject Option: A survey* (2021)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import Rows
from repertoire.claims.beds.learned import must_have_learned
from repertoire.claims.beds.raw import raw_accuracy_of_rows
from repertoire.claims.beds.unknowns import PHOTOGRAPHS, Part, open_set
from repertoire.metrics import aurc
from repertoire.openset import NoveltyScore


def _sorted(part: Part) -> np.ndarray:
    """Log-probabilities of each row, the largest first."""
    return np.asarray(-np.sort(-log_softmax(part.f, axis=1), axis=1))


def _scored(score: NoveltyScore, part: Part) -> np.ndarray:
    return score(part.x, part.f)


SCORES = ("knn", "mahalanobis", "max-logit", "mc-dropout")
"""Novelty scores that take part."""


@claim(
    "reject-option-survey",
    statement=(
        "There are two kinds of rejection: by how much the area under the risk-coverage curve falls when the distance "
        "to the training rows takes the place of the largest probability is more, by two points or more, where errors "
        "come from what is far from all classes than where they come from confusion of known ones."
    ),
    metric="fall of the area under the risk-coverage curve",
    method="distance for probability, where what is far is the error",
    baseline="distance for probability, where known classes are confused",
    data=PHOTOGRAPHS,
    bed="cifar10-lite0",
    threshold=0.02,
    strict=False,
    guard="the layer must be more accurate on known classes than nearest means and neighbours of its features",
)
def two_kinds(budget: Budget, seed: int) -> Measured:
    """Hendrickx et al., *Machine Learning with a Reject Option: A survey* (2021).

    Ambiguity: all test rows of known classes, where errors are rows that are classified wrongly. Novelty: the rows
    that are classified right, and drawings, for which every answer is an error. `extra` has the area of each rule, also
    with photographs of unknown classes in the place of drawings, which are near the known ones. The learned rule sees
    half of the test rows of known classes; all rules are judged on the other half.
    """
    bed = open_set(budget, seed)
    x, y, test_x, test_y = (torch.from_numpy(part) for part in (bed.train.x, bed.train.y, bed.test.x, bed.test.y))
    floor = raw_accuracy_of_rows(Rows(x, y, x[:0], y[:0], test_x, test_y))
    must_have_learned(budget, float(bed.test.right.mean()), floor, "the layer")
    half = np.random.default_rng(seed).permutation(len(bed.test.y)) % 2 == 0
    told, test = (Part(*(column[rows] for column in bed.test)) for rows in (half, ~half))
    rejector = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(_sorted(told), told.right)
    rules: dict[str, Callable[[Part], np.ndarray]] = {
        "largest probability": lambda part: _sorted(part)[:, 0],
        "margin": lambda part: _sorted(part)[:, 0] - _sorted(part)[:, 1],
        "learned": lambda part: rejector.decision_function(_sorted(part)),
        **{spec: functools.partial(_scored, bed.fitted(spec)) for spec in SCORES},
    }
    extra = {"accuracy": float(bed.test.right.mean())}
    for name, rule in rules.items():
        known = rule(test)
        extra[f"ambiguity: {name}"] = aurc(known, ~test.right)
        kept = known[test.right]
        for kind, part in (("novelty", bed.far), ("near novelty", bed.near)):
            errors = np.append(np.zeros(len(kept)), np.ones(len(part.x)))
            extra[f"{kind}: {name}"] = aurc(np.concatenate([kept, rule(part)]), errors)
    fall = {kind: extra[f"{kind}: largest probability"] - extra[f"{kind}: knn"] for kind in ("novelty", "ambiguity")}
    return Measured(fall["novelty"], fall["ambiguity"], extra)
