"""The claim of *Unraveling the Mystery of Scaling Laws: Part I* (2024)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.characters import CONTEXT, TEXT, Reader, parameters_of, places, tested, texts
from repertoire.diagnostics import PowerLaw, fit_critical_batch, fit_power_law
from repertoire.errors import DataError


def _curve(budget: Budget, width: int, batch: int, marks: Sequence[int], seed: int) -> tuple[int, list[float]]:
    """Number of parameters, and the test loss at some steps, of a network that sees places of the text in random
    order, all of them before any twice."""
    train = texts()[0]
    x_test, y_test = (part.to(budget.device) for part in tested(budget))
    order = np.random.default_rng(seed).permutation(len(train) - CONTEXT)
    torch.manual_seed(seed)
    network = Reader(width).to(budget.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for step in range(1, max(marks) + 1):
        seen = order[np.arange((step - 1) * batch, step * batch) % len(order)]
        x, y = places(train, seen)
        optimizer.zero_grad()
        F.cross_entropy(network(x.to(budget.device)), y.to(budget.device)).backward()
        optimizer.step()
        if step in marks:
            with torch.no_grad():
                losses.append(float(F.cross_entropy(network(x_test), y_test)))
    return parameters_of(network), losses


@claim(
    "scaling-mystery",
    statement=(
        "Constants of the scaling formulas that are fitted to small networks at three batch sizes predict the loss "
        "curve of a language model about ten times as large at another batch size with less error, by two percentage "
        "points, than the curve of the largest small network at the nearest batch size."
    ),
    metric="mean relative error of the predicted loss curve",
    method="scaling formulas",
    baseline="the curve of the largest small network",
    data=TEXT,
    tier="real, small",
    threshold=0.02,
    higher_is_better=False,
    guard="the rival is the trivial one: the curve of a small network as it is",
)
def trajectories(budget: Budget, seed: int) -> Measured:
    """Su et al., *Unraveling the Mystery of Scaling Laws: Part I* (2024), with language models of characters:
    L(N, S) = (N_c / N)^a_N + (S_c / S_min)^a_S with S_min = S / (1 + B_crit(L) / B) and B_crit = B* / L^(1 / a_B)."""
    last = budget.pick(smoke=30, small=1500, full=30_000)
    # The laws are of what follows the first, fast fall, the last ten marks. Those before tell in how many steps each
    # batch size came to a loss that all of them reach.
    marks = sorted({int(step) for step in np.geomspace(last / 20, last, 18)})
    later = len(marks) - 10 if budget.name != "smoke" else 0
    widths, batches = budget.pick(
        smoke=([4, 6, 8], [16, 64, 256]), small=([8, 16, 32], [32, 96, 256]), full=([64, 128, 256], [64, 256, 1024])
    )
    large, unseen = budget.pick(smoke=(24, 128), small=(192, 160), full=(1024, 512))
    runs = [(w, b, *_curve(budget, w, b, marks, seed)) for w in widths for b in batches]
    count, truth = _curve(budget, large, unseen, marks, seed)
    predicted = _formulas(runs, marks, count, unseen, later)
    nearest = next(losses for w, b, _, losses in runs if w == widths[-1] and b == batches[-1])
    ours, plain = (
        float(np.mean(np.abs(curve / np.array(truth[later:]) - 1))) for curve in (predicted, nearest[later:])
    )
    extra = {"last loss": truth[-1], "last loss, formulas": float(predicted[-1])}
    return Measured(ours, plain, extra | {"last loss, the largest small network": nearest[-1]})


def _formulas(
    runs: Sequence[tuple[int, int, int, list[float]]], marks: Sequence[int], count: int, batch: int, later: int = 0
) -> np.ndarray:
    """The loss curve of a network of so many parameters at a batch size, by formulas fitted to the later part of
    runs."""
    from scipy.optimize import least_squares

    critical = _CriticalBatch(runs, marks)
    runs, marks = [(*run[:3], run[3][later:]) for run in runs], marks[later:]
    steps = np.tile(np.array(marks, float), len(runs))
    n = np.repeat([float(run[2]) for run in runs], len(marks))
    b = np.repeat([float(run[1]) for run in runs], len(marks))
    y = np.concatenate([run[3] for run in runs])
    least = steps / (1 + critical(y) / b)

    def loss(p: np.ndarray, n: np.ndarray, s: np.ndarray) -> np.ndarray:
        """p: logarithms of both exponents, and of both terms at the middle of the data."""
        first = p[2] - np.exp(p[0]) * (np.log(n) - middle[0])
        return np.asarray(np.logaddexp(first, p[3] - np.exp(p[1]) * (np.log(s) - middle[1])))

    middle = np.log(n).mean(), np.log(least).mean()
    start = np.log(y).mean() - 1
    fits = [
        least_squares(lambda p: loss(p, n, least) - np.log(y), [math.log(a), math.log(s), start, start], loss="huber",
                      f_scale=0.1, max_nfev=100)
        for a, s in itertools.product((0.2, 0.8), repeat=2)
    ]  # fmt: skip
    best = min(fits, key=lambda fit: float(fit.cost)).x
    ahead = np.array(marks, float)
    predicted = np.exp(loss(best, np.full(len(ahead), float(count)), ahead))
    for _ in range(30):  # the critical batch size depends on the loss that is being predicted
        predicted = np.exp(loss(best, np.full(len(ahead), float(count)), ahead / (1 + critical(predicted) / batch)))
    return predicted


class _CriticalBatch:
    """The critical batch size at a loss, from the steps that each batch size takes to several losses."""

    def __init__(self, runs: Sequence[tuple[int, int, int, list[float]]], marks: Sequence[int]) -> None:
        widest = max(run[0] for run in runs)
        curves = {run[1]: np.minimum.accumulate(run[3]) for run in runs if run[0] == widest}
        low, high = max(float(c.min()) for c in curves.values()), min(float(c.max()) for c in curves.values())
        levels, sizes = [], []
        for level in np.geomspace(high, low, 8)[1:-1] if high > low else []:
            steps = [float(np.exp(np.interp(-np.log(level), -np.log(c), np.log(marks)))) for c in curves.values()]
            found = fit_critical_batch(list(curves), steps).batch
            if 0 < found < math.inf:
                levels.append(float(level))
                sizes.append(found)
        self.middle = float(np.exp(np.mean(np.log(sizes)))) if sizes else 0.0
        try:
            self.law: PowerLaw | None = fit_power_law(levels, sizes, floor=False)
        except DataError:  # no level, too few, or a critical batch size that does not grow as the loss falls
            self.law = None

    def __call__(self, loss: np.ndarray) -> np.ndarray:
        return np.full(len(loss), self.middle) if self.law is None else self.law(loss)
