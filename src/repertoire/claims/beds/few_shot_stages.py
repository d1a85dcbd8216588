"""Many rows of base classes first, then sessions of five new classes with five rows each.

Drawings are characters of Omniglot as features of a network that was trained on photographs, in principal components;
rows of the test were drawn by others than those that are learned from. Letters are rows of Letter recognition, sixteen
classes and then two sessions. A seed draws the base classes; an episode draws the order of the new ones, and which rows
of them are shown.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from repertoire.claims import Budget
from repertoire.claims.beds import _named
from repertoire.claims.beds.frozen import Rows, characters, table_rows
from repertoire.estimators import FeatureEstimator, NearestCentroid

DRAWINGS = "Omniglot, frozen features of a pretrained network: 60 characters, then 8 sessions of 5 with 5 rows each"
LETTERS = "Letter recognition, 5,000 rows: sixteen letters, then two sessions of five with 5 rows each"

BASE, SESSIONS, WAYS, SHOTS = 60, 8, 5, 5


class Episode(NamedTuple):
    """Stages of rows and labels, those of the base classes first, and the rows of the test; base classes have the
    labels below `base`."""

    stages: Sequence[tuple[np.ndarray, np.ndarray]]
    test_x: np.ndarray
    test_y: np.ndarray
    base: int


class Setting(NamedTuple):
    """Rows whose labels are numbered so that the base classes come first, and how many these are."""

    rows: Rows
    base: int


def drawings(budget: Budget, seed: int) -> Setting:
    """Features of drawn characters: 60 base classes, or half of what a smoke run has."""
    rows = characters(budget, seed, each=1000)
    return _renumbered(rows, seed, min(BASE, (int(rows.y.max()) + 1) // 2))


def letters(budget: Budget, seed: int) -> Setting:
    """Rows of letters, each column with a mean of 0 and a deviation of 1: 16 of the 26 classes are base."""
    rows = _letters(budget)
    return _renumbered(rows, seed, (int(rows.y.max()) + 1) * 16 // 26)


@functools.lru_cache(maxsize=1)
def _letters(budget: Budget) -> Rows:
    rows = table_rows(_named.get("letters").splits(budget, 0))
    mean, spread = rows.x.mean(0), rows.x.std(0) + 1e-6
    return Rows(*((part - mean) / spread if part.ndim == 2 else part for part in rows))


def _renumbered(rows: Rows, seed: int, base: int) -> Setting:
    order = torch.randperm(int(rows.y.max()) + 1, generator=torch.Generator().manual_seed(seed))
    place = order.argsort()
    return Setting(rows._replace(y=place[rows.y], test_y=place[rows.test_y]), base)


def episode(setting: Setting, x: torch.Tensor, test_x: torch.Tensor, seed: int) -> Episode:
    """Stages of the classes, with other features in the place of their own.

    Args:
        setting: whose classes.
        x, test_x: features of the rows and of those of the test.
        seed: of the new classes and their rows.
    """
    (rows, base), generator = setting, torch.Generator().manual_seed(seed)
    others = base + torch.randperm(int(rows.y.max()) + 1 - base, generator=generator)
    sessions = others[: SESSIONS * WAYS].split(WAYS)
    seen = rows.y < base
    stages = [(x[seen].numpy(), rows.y[seen].numpy())]
    for session in sessions:
        shown = []
        for c in session.tolist():
            members = (rows.y == c).nonzero().flatten()
            shown.append(members[torch.randperm(len(members), generator=generator)[:SHOTS]])
        index = torch.cat(shown)
        stages.append((x[index].numpy(), rows.y[index].numpy()))
    tested = torch.isin(rows.test_y, torch.cat([torch.arange(base), *sessions]))
    return Episode(stages, test_x[tested].numpy(), rows.test_y[tested].numpy(), base)


def learned(model: FeatureEstimator, found: Episode) -> dict[str, float]:
    """What an estimator knows after the last session: accuracy on base classes and on new ones, among all classes,
    their harmonic mean, and the share of rows of new classes that are taken for base classes."""
    for x, y in found.stages:
        model.partial_fit(x, y)
    said = model.predict(found.test_x)
    old = found.test_y < found.base
    right = said == found.test_y
    base, new = float(right[old].mean()), float(right[~old].mean())
    return {
        "harmonic": 2 * base * new / (base + new) if base + new else 0.0,
        "base": base,
        "new": new,
        "new taken for base": float((said[~old] < found.base).mean()),
    }


def mean_of(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure."""
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def class_means(setting: Setting, seed: int, count: int) -> dict[str, float]:
    """What class means of the rows as they come know after the last session, in the mean over so many episodes."""
    x, test_x = setting.rows.x, setting.rows.test_x
    return mean_of(
        [learned(NearestCentroid(), episode(setting, x, test_x, 1000 * seed + number)) for number in range(count)]
    )
