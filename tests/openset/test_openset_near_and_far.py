"""Unknowns that are like a known class, and such as are like nothing: one number for both says little of either."""

from __future__ import annotations

import numpy as np
import pytest

from repertoire.openset import build_score, detection


def world(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows to learn from with their classes, known rows, siblings of known classes, and noise elsewhere."""
    generator = np.random.default_rng(seed)
    centres = 6 * np.eye(4, 12)
    y = np.arange(200) % 4
    train, known = (centres[y] + generator.normal(size=(200, 12)) for _ in range(2))
    # A sibling is further from its class along one direction than rows of the class are from each other.
    near = centres[y] + 2.5 * np.eye(12)[4] + generator.normal(size=(200, 12))
    far = 4 * generator.normal(size=(200, 12))
    return train, y, known, near, far


@pytest.mark.parametrize("spec", ["knn:normalize=false", "mahalanobis", "energy", "max-softmax"])
def test_siblings_are_harder_than_noise_and_both_together_hide_it(spec: str):
    train, y, known, near, far = world(0)
    weight = np.eye(4, 12)
    score = build_score(spec, weight).fit(train, train @ weight.T, y)
    scores = [score(part, part @ weight.T) for part in (known, near, far)]
    right = (known @ weight.T).argmax(1) == y
    apart = [detection(scores[0], right, other) for other in scores[1:]]
    pooled = detection(scores[0], right, np.concatenate(scores[1:]))
    assert apart[0].auroc < apart[1].auroc - 0.05
    assert apart[0].fpr95 > apart[1].fpr95 + 0.05
    assert pooled.auroc == pytest.approx((apart[0].auroc + apart[1].auroc) / 2)
    assert apart[0].auroc < pooled.auroc < apart[1].auroc
