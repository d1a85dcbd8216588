"""Neighbourhoods of a local approximation: masks, coalitions, points of a path, and noise, the same for all images.

What is drawn here is small and drawn on the processor in double precision, so that results repeat on every device;
noise of the size of images is drawn where the images are.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Kernel", "MaskSampling", "Rule", "coalitions", "kernel_weights", "masks", "one_out", "path"]

Kernel = Literal["cosine", "euclidean"]
MaskSampling = Literal["count", "coin"]
Rule = Literal["gauss-legendre", "right", "midpoint"]


def masks(count: int, samples: int, sampling: MaskSampling, generator: torch.Generator) -> Tensor:
    """Draws which of `count` components are kept, bool `[samples, count]`; the first row keeps all.

    With "count" the number that is kept is uniform in 1..count, and which ones is uniform given that; with "coin" each
    is kept with probability one half.
    """
    if sampling == "coin":
        drawn = torch.rand(samples, count, generator=generator, dtype=torch.float64) < 0.5
    else:
        kept = torch.randint(1, count + 1, (samples,), generator=generator)
        drawn = _subsets(kept, count, generator)
    drawn[:1] = True
    return drawn


def kernel_weights(kept: Tensor, kernel: Kernel, width: float | None) -> Tensor:
    """exp(-d^2 / width^2), with d the distance of each row of masks to the row that keeps all; float64 `[samples]`."""
    number, count = kept.sum(1).double(), kept.shape[1]
    if kernel == "cosine":
        distance, default = 1 - (number / count).sqrt(), 0.25
    else:
        distance, default = (count - number).sqrt(), 0.75 * math.sqrt(count)
    return (-((distance / (default if width is None else width)) ** 2)).exp()


def coalitions(count: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Coalitions under the Shapley kernel, without the empty and the full one, and their weights, which sum to one.

    All of them with the weight of the kernel where there are no more than `samples`; else `samples // 2` drawn from it,
    each beside its complement, with equal weights.
    """
    if count < 2:
        return torch.zeros(0, count, dtype=torch.bool), torch.zeros(0, dtype=torch.float64)
    sizes = torch.arange(1, count, dtype=torch.float64)
    of_size = 1 / (sizes * (count - sizes))  # the kernel, summed over the coalitions of a size
    of_size /= of_size.sum()
    if count < 60 and 2**count - 2 <= samples:
        kept = (torch.arange(1, 2**count - 1)[:, None] >> torch.arange(count)) & 1 == 1
        number = torch.tensor([math.comb(count, size) for size in range(1, count)], dtype=torch.float64)
        return kept, (of_size / number)[kept.sum(1) - 1]
    half = max(samples // 2, 1)
    drawn = torch.multinomial(of_size, half, replacement=True, generator=generator) + 1
    kept = _subsets(drawn, count, generator)
    return torch.cat([kept, ~kept]), torch.full((2 * half,), 0.5 / half, dtype=torch.float64)


def one_out(count: int) -> Tensor:
    """Each component removed once, bool `[count, count]`."""
    return ~torch.eye(count, dtype=torch.bool)


def path(start: float, steps: int, rule: Rule) -> tuple[Tensor, Tensor]:
    """Nodes and weights, which sum to one, of an integral over the shares [start, 1] of the way to the input, float64.

    Gauss-Legendre integrates polynomials up to degree 2 steps - 1 exactly; "right" and "midpoint" are Riemann sums.
    """
    if start == 1:
        return torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    if rule == "gauss-legendre":  # eigenvalues of the Jacobi matrix of Legendre's polynomials (Golub and Welsch)
        k = torch.arange(1, steps, dtype=torch.float64)
        beside = torch.diag(k / (4 * k**2 - 1).sqrt(), 1)
        nodes, vectors = torch.linalg.eigh(beside + beside.T)
        nodes, weights = (nodes + 1) / 2, vectors[0] ** 2
    else:
        nodes = (torch.arange(steps, dtype=torch.float64) + (1 if rule == "right" else 0.5)) / steps
        weights = torch.full((steps,), 1 / steps, dtype=torch.float64)
    return start + (1 - start) * nodes, weights


def _subsets(sizes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """A uniformly random subset of each size, bool `[len(sizes), count]`."""
    rank = torch.rand(len(sizes), count, generator=generator, dtype=torch.float64).argsort(1).argsort(1)
    return rank < sizes[:, None]
