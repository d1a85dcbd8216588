"""The claims of *G-ACIL: Analytic Learning for Exemplar-Free Generalized Class Incremental Learning* (2024)."""

from __future__ import annotations

import numpy as np
import torch

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds import feature_stages as bed
from repertoire.estimators import Analytic, NearestCentroid

EXPANSION, RIDGE = 1000, 1000.0
STRENGTH, RATE = 100.0, 0.0003
"""Of EWC and of both networks: the best on the first two stages of pilot seeds, see the docstring of `g_acil`."""


@arm
def learned(budget: Budget, seed: int) -> dict[str, float]:
    """The estimator after five stages of two classes, the nearest class mean, and everything at once."""
    splits = bed.photographs(budget, seed)
    size = budget.pick(smoke=100, small=EXPANSION, full=5 * EXPANSION)
    analytic = bed.estimated(splits, seed, Analytic(size, RIDGE, random_state=seed))
    rows = splits.train.inputs(slice(None))
    joint = Analytic(size, RIDGE, random_state=seed).fit(rows, splits.train.labels)
    right = joint.predict(splits.test.inputs(slice(None))) == splits.test.labels
    return {
        **analytic,
        "joint": float(right.mean()),
        "nearest class mean": bed.estimated(splits, seed, NearestCentroid())["accuracy"],
    }


@claim(
    "g-acil",
    statement=(
        "After five stages of two classes without any kept samples, ridge regression on random features, learned in "
        "pieces, is more accurate than a linear layer trained with EWC, by five points or more."
    ),
    metric="average accuracy over all classes at the end",
    method="analytic",
    baseline="EWC",
    data=bed.PHOTOGRAPHS,
    bed="cifar10-lite0",
    threshold=0.05,
    strict=False,
    floor=bed.class_means_in_the_end,
    learned=0.01,
    learned_by="best",
    guard="class means of the features; the rival is one that forgets",
)
def g_acil(budget: Budget, seed: int) -> Measured:
    """Zhuang et al., *G-ACIL: Analytic Learning for Exemplar-Free Generalized Class Incremental Learning* (2024).

    The learning rate of the linear layer, of 0.0003, 0.001 and 0.003, and the penalty of the ridge regression, of 1 to
    10,000, are those that did best on the first two stages of pilot seeds. The strength of EWC, of 1 to 10,000, made no
    difference there: with a softmax over the classes of the stage, rows of earlier classes have no gradient, and of a
    linear layer nothing else could forget. `extra` has plain fine-tuning, the nearest class mean, and forgetting.
    """
    ours = learned(budget, seed)
    ewc = bed.network(budget, seed, method=f"ewc:strength={STRENGTH}", rate=RATE)
    tuned = bed.network(budget, seed, method="supervised", rate=RATE)
    extra = {
        "fine-tuning": tuned["accuracy"],
        "nearest class mean": ours["nearest class mean"],
        "analytic: forgetting": ours["forgetting"],
        "EWC: forgetting": ewc["forgetting"],
        "analytic, everything at once": ours["joint"],
    }
    return Measured(ours["accuracy"], ewc["accuracy"], extra)


@claim(
    "g-acil",
    part="exactness",
    statement=(
        "Learned in random pieces of mixed classes, of one row up to 300, the weights are those of one ridge "
        "regression on all rows."
    ),
    metric="largest difference of the weights, relative to the largest weight",
    method="recursion against one linear system",
    data=bed.PHOTOGRAPHS,
    bed="cifar10-lite0",
    kind="identity",
    threshold=1e-6,
    exact=True,
)
def exactness(budget: Budget, seed: int) -> Measured:
    """Zhuang et al. (2024), theorem on weight invariance. Ten orders and divisions, one of them class by class and one
    row by row; `extra` has the largest difference of any prediction."""
    splits = bed.photographs(budget, seed)
    x, y = splits.train.inputs(slice(None)), splits.train.labels
    size = budget.pick(smoke=60, small=400, full=1000)
    whole = Analytic(size, 1.0).fit(x, y)
    h = torch.from_numpy(whole._expanded(x.astype(np.float64)))
    targets = torch.from_numpy((y[:, None] == whole.classes_).astype(np.float64))
    system = h.T @ h + torch.eye(size, dtype=torch.float64)
    expected = torch.linalg.solve(system, h.T @ targets).T.numpy()
    worst, apart = 0.0, 0.0
    for number in range(budget.pick(smoke=2, small=4, full=10)):
        generator = np.random.default_rng([seed, number])
        order = np.argsort(y, kind="stable") if number == 0 else generator.permutation(len(y))
        most = 1 if number == 1 and budget.name != "smoke" else 300
        cuts = np.cumsum(generator.integers(1, most + 1, len(y)))
        model = Analytic(size, 1.0)
        for rows in np.split(order, cuts[cuts < len(y)]):
            model.partial_fit(x[rows], y[rows])
        worst = max(worst, float(np.abs(model.weight_ - expected).max() / np.abs(expected).max()))
        apart = max(apart, float(np.abs(model.logits(x) - whole.logits(x)).max()))
    return Measured(worst, extra={"largest difference of a score": apart})
