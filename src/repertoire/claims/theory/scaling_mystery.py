"""The claim of *Unraveling the Mystery of Scaling Laws: Part I* (2024)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.teachers import INPUTS, TEACHER, parameters_of, random_teacher, student_of
from repertoire.diagnostics import PowerLaw, fit_critical_batch, fit_power_law
from repertoire.errors import DataError


def _curve(
    teacher: nn.Module, width: int, batch: int, marks: Sequence[int], rate: float, seed: int, device: str
) -> tuple[int, list[float]]:
    """Number of parameters, and the test loss at some steps, of a network that sees every sample once."""
    generator = torch.Generator().manual_seed(seed)
    x_test = torch.randn(2000, INPUTS, generator=torch.Generator().manual_seed(77)).to(device)
    y_test = teacher(x_test)
    torch.manual_seed(seed)
    network = student_of(width).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    losses = []
    for step in range(1, max(marks) + 1):
        x = torch.randn(batch, INPUTS, generator=generator).to(device)
        optimizer.zero_grad()
        F.mse_loss(network(x), teacher(x)).backward()
        optimizer.step()
        if step in marks:
            with torch.no_grad():
                losses.append(float(F.mse_loss(network(x_test), y_test)))
    return parameters_of(network), losses


@claim(
    "scaling-mystery",
    statement=(
        "Constants of the scaling formulas that are fitted to small networks at three batch sizes predict the loss "
        "curve of a network about ten times as large at another batch size with less error than the curve of the "
        "largest small network at the nearest batch size."
    ),
    metric="mean relative error of the predicted loss curve",
    method="scaling formulas",
    baseline="the curve of the largest small network",
    data=TEACHER,
    threshold=0.0,
    higher_is_better=False,
)
def trajectories(budget: Budget, seed: int) -> Measured:
    """Su et al., *Unraveling the Mystery of Scaling Laws: Part I* (2024), with small networks in place of language
    models: L(N, S) = (N_c / N)^a_N + (S_c / S_min)^a_S with S_min = S / (1 + B_crit(L) / B) and
    B_crit = B* / L^(1 / a_B)."""
    teacher = random_teacher(seed, budget.device)
    last = budget.pick(smoke=30, small=1000, full=30_000)
    marks = sorted({int(step) for step in np.geomspace(last / 20, last, 10)})
    widths, batches = budget.pick(
        smoke=([4, 6, 8], [16, 64, 256]), small=([6, 9, 14], [16, 64, 256]), full=([16, 32, 64], [64, 256, 1024])
    )
    large, unseen = budget.pick(smoke=(24, 128), small=(48, 128), full=(256, 512))
    errors = {}
    for rate in (5e-3, 2e-3):
        runs = [(w, b, *_curve(teacher, w, b, marks, rate, seed, budget.device)) for w in widths for b in batches]
        count, truth = _curve(teacher, large, unseen, marks, rate, seed, budget.device)
        predicted = _formulas(runs, marks, count, unseen)
        nearest = next(losses for w, b, _, losses in runs if w == widths[-1] and b == batches[-1])
        errors[rate] = [float(np.mean(np.abs(np.array(c) / truth - 1))) for c in (predicted, nearest)]
    (ours, plain), (slower, plain_slower) = errors[5e-3], errors[2e-3]
    return Measured(
        ours, plain, {"formulas, lower learning rate": slower, "baseline, lower learning rate": plain_slower}
    )


def _formulas(
    runs: Sequence[tuple[int, int, int, list[float]]], marks: Sequence[int], count: int, batch: int
) -> np.ndarray:
    """The loss curve of a network of so many parameters at a batch size, by formulas fitted to runs."""
    from scipy.optimize import least_squares

    critical = _CriticalBatch(runs, marks)
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
