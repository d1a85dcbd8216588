"""Claims of papers on laws of scaling, and on how many comparisons an embedding takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.diagnostics import PowerLaw, comparisons_needed, fit_critical_batch, fit_joint_power_law, fit_power_law
from repertoire.errors import DataError

#: Variables that the teacher reads.
INPUTS = 6
TEACHER = "values of a random network of three layers on Gaussian inputs"


def _teacher(seed: int, device: str) -> nn.Module:
    torch.manual_seed(1000 + seed)
    layers = [nn.Linear(INPUTS, 32), nn.Linear(32, 32), nn.Linear(32, 1)]
    for layer in layers:
        nn.init.normal_(layer.weight, 0, 1.5 / layer.in_features**0.5)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2]).to(device).requires_grad_(False)


def _student(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _best_loss(teacher: nn.Module, width: int, samples: int, steps: int, seed: int, device: str) -> tuple[int, float]:
    """Number of parameters, and the lowest test loss on the way, of a network trained on some samples of a teacher."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, INPUTS, generator=generator).to(device)
    x_test = torch.randn(2000, INPUTS, generator=torch.Generator().manual_seed(77)).to(device)
    y, y_test = teacher(x), teacher(x_test)
    torch.manual_seed(seed)
    network = _student(width).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best = math.inf
    for step in range(steps):
        index = torch.randint(samples, (64,), generator=generator).to(device)
        optimizer.zero_grad()
        F.mse_loss(network(x[index]), y[index]).backward()
        optimizer.step()
        rate.step()
        if (step + 1) % max(steps // 20, 1) == 0:
            with torch.no_grad():
                best = min(best, float(F.mse_loss(network(x_test), y_test)))
    return _count(network), best


@claim(
    "lm-scaling-laws",
    statement=(
        "Power laws in the number of samples and of parameters, fitted to small runs, predict the loss of runs that "
        "are four to eight times as large with less error than lines in the logarithm."
    ),
    metric="relative error of the predicted loss of larger runs",
    method="power law",
    baseline="line in the logarithm",
    data=TEACHER,
    threshold=0.0,
    higher_is_better=False,
)
def scaling_laws(budget: Budget, seed: int) -> Measured:
    """Kaplan et al., *Scaling Laws for Neural Language Models* (2020), with small networks in place of language
    models: the loss of early-stopped runs in the number of samples D for a large network, and in the number of
    parameters N for many samples."""
    teacher = _teacher(seed, budget.device)
    steps = budget.pick(smoke=20, small=1000, full=20_000)
    scale = budget.pick(smoke=1, small=1, full=8)
    large, many = 64 * scale, 30_000 * scale
    sizes, larger = [60, 120, 240, 480, 960], [3840, 7680]
    widths, wider = [2, 3, 5, 8, 12], [28, 40]
    data = [_best_loss(teacher, large, d, steps, seed, budget.device)[1] for d in (*sizes, *larger)]
    nets = [_best_loss(teacher, w, many, steps, seed, budget.device) for w in (*widths, *wider)]
    counts, losses = [count for count, _ in nets], [loss for _, loss in nets]
    results: dict[str, list[float]] = {"law": [], "line": []}
    extra = {}
    for name, x, y in (("D", [*sizes, *larger], data), ("N", counts, losses)):
        known = len(x) - 2
        try:
            law = fit_power_law(x[:known], y[:known], floor=False)
            predicted = law(x[known:])
            extra[f"exponent of {name}"] = law.exponent
        except DataError:  # too short a run falls nowhere: the law then predicts that it goes on so
            predicted = np.full(2, float(np.mean(y[:known])))
        slope, level = np.polyfit(np.log(x[:known]), y[:known], 1)
        line = level + slope * np.log(x[known:])
        truth = np.array(y[known:])
        results["law"] += list(np.abs(predicted / truth - 1))
        results["line"] += list(np.abs(line / truth - 1))
    n = [*[_count(_student(large))] * 5, *counts[:5]]
    joint = fit_joint_power_law(n, [*sizes, *[many] * 5], [*data[:5], *losses[:5]])
    apart = joint([counts[5], _count(_student(large))], [many, larger[1]])
    extra["joint law, relative error"] = float(np.mean(np.abs(apart / [losses[5], data[6]] - 1)))
    return Measured(float(np.mean(results["law"])), float(np.mean(results["line"])), extra)


def _curve(
    teacher: nn.Module, width: int, batch: int, marks: Sequence[int], rate: float, seed: int, device: str
) -> tuple[int, list[float]]:
    """Number of parameters, and the test loss at some steps, of a network that sees every sample once."""
    generator = torch.Generator().manual_seed(seed)
    x_test = torch.randn(2000, INPUTS, generator=torch.Generator().manual_seed(77)).to(device)
    y_test = teacher(x_test)
    torch.manual_seed(seed)
    network = _student(width).to(device)
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
    return _count(network), losses


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
    teacher = _teacher(seed, budget.device)
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


@claim(
    "contrastive-sample-complexity",
    statement=(
        "The number of labelled triplets that an embedding needs for 90 % accuracy on others is predicted better by "
        "c min(nd, n squared) than by c n squared, with c from the smallest case."
    ),
    metric="mean distance of the predicted number of triplets from the measured one, in doublings",
    method="proportional to min(nd, n squared)",
    baseline="proportional to n squared",
    data="random points of 2 or 6 dimensions, and triplets that compare their distances",
    threshold=0.0,
    higher_is_better=False,
)
def triplets(budget: Budget, seed: int) -> Measured:
    """Alon et al., *Optimal Sample Complexity of Contrastive Learning* (2023)."""
    cases = budget.pick(
        smoke=[(10, 2), (20, 2)],
        small=[(16, 2), (32, 2), (16, 6), (32, 6)],
        full=[(32, 2), (128, 2), (32, 8), (128, 8), (128, 32)],
    )
    steps = budget.pick(smoke=10, small=300, full=1000)
    needed = [_triplets_needed(n, d, steps, seed, budget.device) for n, d in cases]
    errors = []
    for rule in (comparisons_needed, lambda n, d: n * n):
        unit = needed[0] / rule(*cases[0])
        errors.append(
            float(np.mean([abs(math.log2(unit * rule(*c) / m)) for c, m in zip(cases[1:], needed[1:], strict=True)]))
        )
    extra = {f"triplets for n = {n}, d = {d}": m for (n, d), m in zip(cases, needed, strict=True)}
    return Measured(errors[0], errors[1], extra)


def _triplets_needed(n: int, d: int, steps: int, seed: int, device: str) -> float:
    """Where held-out accuracy passes 90 %, between numbers of triplets that double; the most if it never does."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, d, generator=generator)
    counts = [n * d * 2**i for i in range(6)]
    restarts = 2
    train, test = (_triplets(points, count, generator).to(device) for count in (counts[-1], 4000))
    used = (torch.arange(counts[-1])[None] < torch.tensor(counts)[:, None]).to(device).repeat_interleave(restarts, 0)
    x = torch.randn(len(counts) * restarts, n, d, generator=generator).to(device).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        hinge = ((1 - _margins(x, train)).clamp_min(0) * used).sum(1) / used.sum(1)
        hinge.sum().backward()
        optimizer.step()
    with torch.no_grad():
        best = ((1 - _margins(x, train)).clamp_min(0) * used).sum(1).view(-1, restarts).argmin(1)
        accuracy = (_margins(x, test) > 0).float().mean(1).view(-1, restarts)
    reached = accuracy[torch.arange(len(counts)), best].cpu().numpy()
    over = np.nonzero(reached >= 0.9)[0]
    if not len(over):
        return float(counts[-1])
    place = int(over[0])
    if place == 0:
        return float(counts[0])
    share = (0.9 - reached[place - 1]) / (reached[place] - reached[place - 1])
    return float(counts[place - 1] * 2**share)


def _triplets(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Anchor, closer, farther: int64 `[count, 3]`."""
    drawn = torch.stack([torch.randperm(len(points), generator=generator)[:3] for _ in range(count)])
    first, second = ((points[drawn[:, 0]] - points[drawn[:, i]]).square().sum(1) for i in (1, 2))
    swapped = torch.where((first > second)[:, None], drawn[:, [0, 2, 1]], drawn)
    return swapped


def _margins(x: Tensor, index: Tensor) -> Tensor:
    """How much farther the farther is, in squared distances: `[R, M]` for embeddings `[R, n, d]`."""
    distances = (x[:, :, None] - x[:, None]).square().sum(3).flatten(1)
    a, p, q = index.T
    return distances[:, a * x.shape[1] + q] - distances[:, a * x.shape[1] + p]
