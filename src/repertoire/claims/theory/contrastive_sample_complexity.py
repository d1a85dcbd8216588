"""The claim of *Optimal Sample Complexity of Contrastive Learning* (2023)."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.diagnostics import comparisons_needed

CASES_SMOKE, CASES_SMALL = ((10, 2), (20, 2)), ((16, 2), (32, 2), (16, 6), (32, 6))
CASES_FULL = ((32, 2), (128, 2), (32, 8), (128, 8), (128, 32))


@functools.lru_cache(maxsize=1)
def _needed(budget: Budget, seed: int) -> dict[tuple[int, int], float]:
    """How many triplets each case needs, by its number of points and of dimensions."""
    steps = budget.pick(smoke=10, small=300, full=1000)
    cases = budget.pick(smoke=CASES_SMOKE, small=CASES_SMALL, full=CASES_FULL)
    return {(n, d): _triplets_needed(n, d, steps, seed, budget.device) for n, d in cases}


def _doublings(predicted: Iterable[float], measured: Iterable[float]) -> float:
    """Mean distance of numbers in doublings."""
    return float(np.mean([abs(math.log2(p / m)) for p, m in zip(predicted, measured, strict=True)]))


def one_number(budget: Budget, seed: int) -> float:
    """The distance of a rule that names for all cases what the smallest needs."""
    first, *rest = _needed(budget, seed).values()
    return _doublings([first] * len(rest), rest)


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
    learned=0.2,
    floor=one_number,
    guard="a rule that names for all cases the number of the smallest",
)
def triplets(budget: Budget, seed: int) -> Measured:
    """Alon et al., *Optimal Sample Complexity of Contrastive Learning* (2023)."""
    (smallest, first), *rest = _needed(budget, seed).items()
    errors = []
    for rule in (comparisons_needed, lambda n, d: n * n):
        unit = first / rule(*smallest)
        errors.append(_doublings([unit * rule(*case) for case, _ in rest], [m for _, m in rest]))
    extra = {f"triplets for n = {n}, d = {d}": m for (n, d), m in _needed(budget, seed).items()}
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
