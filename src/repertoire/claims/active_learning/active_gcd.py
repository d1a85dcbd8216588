"""The claim of *Active Generalized Category Discovery* (2024)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds import new_classes as bed
from repertoire.metrics import clustering_accuracy
from repertoire.select import select

ROUNDS, EACH = 5, 20


@arm
def asked(budget: Budget, seed: int, *, selector: str) -> dict[str, float]:
    """Rounds of labels: `new` and `all` accuracy in the end on the rows that had no label in the beginning, and how
    many new classes were `seen`.

    Rows that are chosen count as they are labelled, with every selector. A class that a label names for the first time
    becomes a known one.
    """
    task = bed.drawn(budget, seed, rows=800)
    rounds, each = budget.pick(smoke=1, small=ROUNDS, full=ROUNDS), budget.pick(smoke=8, small=EACH, full=100)
    method = bed.quick(budget, "simgcd:epochs=10")
    labels = task.y.copy()
    # New classes are numbered as they are met; the old ones are there already.
    met = list(range(task.known))
    for turn in range(rounds):
        numbers = {c: number for number, c in enumerate(met)}
        given = np.array([numbers[c] if c >= 0 else -1 for c in labels.tolist()])
        found = bed.grouped(method, task._replace(y=given), seed, task.classes)
        free = np.flatnonzero(labels < 0)
        assert found.probabilities_ is not None
        options: dict[str, Any] = {"probabilities": torch.from_numpy(found.probabilities_[free])}
        options["features"] = torch.from_numpy(task.x[free])
        chosen = free[select(_spec(selector, turn, task.known), each, seed=seed + turn, **options).numpy()]
        labels[chosen] = task.truth[chosen]
        met += [int(c) for c in dict.fromkeys(labels[chosen].tolist()) if c not in met]
    numbers = {c: number for number, c in enumerate(met)}
    given = np.array([numbers[c] if c >= 0 else -1 for c in labels.tolist()])
    found = bed.grouped(method, task._replace(y=given), seed, task.classes)
    judged = task.y < 0
    values = clustering_accuracy(found.labels_[judged], task.truth[judged], old=range(task.known))
    return {"new": values.new, "all": values.all, "seen": float(len(met) - task.known)}


def _spec(selector: str, turn: int, known: int) -> str:
    """The selector of a round: that of the paper takes sure samples in the first."""
    if selector != "novel-margin":
        return selector
    return f"novel-margin:known={known},sure={'true' if turn == 0 else 'false'}"


def clustered(budget: Budget, seed: int) -> float:
    """What k-means of the features scores, without any label."""
    return bed.clustered(bed.drawn(budget, seed, rows=800), seed)["new"]


@claim(
    "active-gcd",
    statement=(
        "After five rounds of 20 labels, new classes are grouped more accurately where the labels went to samples that "
        "seem new, spread over the new groups and chosen by their margin, than where they went to random samples."
    ),
    metric="accuracy on rows of new classes",
    method="novel margin",
    baseline="random samples",
    data="CIFAR-10, frozen features of a pretrained network: five classes known by half of their rows, five new",
    bed="cifar10-lite0",
    threshold=0.01,
    floor=clustered,
    learned=0.05,
    guard="k-means of the features as they come, told the true number of classes",
    ceiling=1.0,
)
def active_gcd(budget: Budget, seed: int) -> Measured:
    """Ma et al., *Active Generalized Category Discovery* (2024), with SimGCD's objective on frozen features, told that
    there are ten classes. `extra` has the selection by entropy, and all classes."""
    ours, theirs = (asked(budget, seed, selector=name) for name in ("novel-margin", "random"))
    extra = {
        "entropy": asked(budget, seed, selector="entropy")["new"],
        "novel margin: all classes": ours["all"],
        "random: all classes": theirs["all"],
    }
    return Measured(ours["new"], theirs["new"], extra)
