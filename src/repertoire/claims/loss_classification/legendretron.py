"""The claim of *LegendreTron: Uprising Proper Multiclass Loss Learning* (2023)."""

from __future__ import annotations

import torch
from sklearn.neighbors import NearestCentroid
from torch.nn import functional as F

from repertoire import heads
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds import LETTERS_REDRAWN, _named
from repertoire.claims.beds.frozen import fitted, shares, table_rows

RATE = 0.03
"""The best of 0.003, 0.01, 0.03 and 0.1 for both, on validation rows of two pilot seeds."""


def scored(budget: Budget, seed: int, kind: type[heads.Head], rate: float) -> tuple[dict[str, float], dict[str, float]]:
    """What linear scores with a link are worth on validation and test rows."""
    rows = table_rows(_named.get("letters").splits(budget, seed)).to(budget.device)
    torch.manual_seed(seed)
    head = kind(rows.x.shape[1], int(rows.y.max()) + 1)
    fitted(rows, F.cross_entropy, head, epochs=budget.pick(smoke=1, small=40, full=240), rate=rate)
    with torch.no_grad():
        return shares(head(rows.val_x), rows.val_y), shares(head(rows.test_x), rows.test_y)


def nearest_mean(budget: Budget, seed: int) -> float:
    """How often the nearest class mean is right."""
    rows = table_rows(_named.get("letters").splits(budget, seed))
    return float(NearestCentroid().fit(rows.x.numpy(), rows.y.numpy()).score(rows.test_x.numpy(), rows.test_y.numpy()))


@claim(
    "legendretron",
    statement="With 26 classes, linear scores and a learned link are more accurate than logistic regression.",
    metric="test accuracy",
    method="linear scores, learned link",
    baseline="linear scores, softmax",
    bed="letters",
    threshold=0.005,
    learned=0.02,
    floor=nearest_mean,
    guard="the nearest class mean, whose boundaries are linear too; neighbours are not, and do better than both",
    overlap=LETTERS_REDRAWN,
)
def legendretron(budget: Budget, seed: int) -> Measured:
    """Lam et al., *LegendreTron: Uprising Proper Multiclass Loss Learning* (2023), which sees its gains on tables with
    more than ten classes.

    `extra` has the log-likelihood of the test rows, which a proper loss is to make large.
    """
    (_, learned), (_, plain) = (
        scored(budget, seed, heads.Legendre, RATE),
        scored(budget, seed, heads.Linear, RATE),
    )
    likelihood = {
        "learned link: log-likelihood": learned["log-likelihood"],
        "softmax: log-likelihood": plain["log-likelihood"],
    }
    return Measured(learned["accuracy"], plain["accuracy"], likelihood)
