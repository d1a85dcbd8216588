"""t-SNE of a few hundred points, exactly: sooner done than a package for many points is imported."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["principal_components", "tsne"]

STEPS, EARLY = 1000, 250
"""Steps of descent, and how many of them hold the points together by a factor of `EXAGGERATION`."""

EXAGGERATION = 12.0
HALVINGS = 50
"""Of the interval in which the width of a point's neighbourhood is searched."""


def principal_components(x: np.ndarray, most: int) -> np.ndarray:
    """Centred rows `[N, d]` along their principal directions `[N, k]`, k <= `most`, the largest first: float64.

    Found from the products of the rows with each other, which are few. Signs are such that the largest entry of each
    component is positive.
    """
    rows = torch.from_numpy(np.asarray(x, dtype=np.float64))
    rows = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    count = min(most, *rows.shape)
    scores = vectors.flip(1)[:, :count] * values.flip(0)[:count].clamp_min(0).sqrt()
    largest = scores.gather(0, scores.abs().argmax(0, keepdim=True))
    return (scores * largest.sign().where(largest != 0, 1.0)).numpy()


def tsne(x: np.ndarray, *, perplexity: float) -> np.ndarray:
    r"""A map `[N, 2]` in which near points stay near.

    van der Maaten and Hinton, *Visualizing Data using t-SNE* (2008). With the :math:`\beta_i` that give each point the
    perplexity:

    .. math:: \min_y \sum_{ij} p_{ij} \log \frac{p_{ij}}{q_{ij}}, \qquad
        p_{j|i} \propto e^{-\beta_i \|x_i - x_j\|^2}, \quad p_{ij} = \frac{p_{j|i} + p_{i|j}}{2N}, \quad
        q_{ij} \propto \frac{1}{1 + \|y_i - y_j\|^2}

    Descent with momentum and gains, as the authors have it, from the first two columns of x; the rate is N / 48, or 50
    (Belkina et al., *Automated optimized parameters for T-distributed stochastic neighbor embedding*, 2019). Nothing is
    drawn at random. Takes memory of N x N: for hundreds of points.

    Args:
        x: `[N, d]`, d >= 2, its first two columns those that the map begins with.
        perplexity: neighbours of a point, about; below N.
    """
    rows = torch.from_numpy(np.asarray(x, dtype=np.float64))
    p = _affinities(torch.cdist(rows, rows).square(), perplexity).float()
    y = rows[:, :2].float()
    y = y / y[:, 0].std().clamp_min(1e-12) * 1e-4
    rate = max(len(y) / EXAGGERATION / 4, 50.0)
    together = p * EXAGGERATION
    for step in range(STEPS):
        if step in (0, EARLY):
            # What has gathered speed while the points were held together would throw them apart.
            velocity, gains = torch.zeros_like(y), torch.ones_like(y)
        wanted = together if step < EARLY else p
        near = torch.cdist(y, y, compute_mode="donot_use_mm_for_euclid_dist").square_().add_(1).reciprocal_()
        near.fill_diagonal_(0)
        pull = torch.sub(wanted, near, alpha=1 / float(near.sum())).mul_(near)
        gradient = 4 * (pull.sum(1, keepdim=True) * y - pull @ y)
        # A gain grows while its coordinate keeps its direction.
        gains = torch.where(velocity * gradient < 0, gains + 0.2, gains * 0.8).clamp_min(0.01)
        velocity = (0.5 if step < EARLY else 0.8) * velocity - rate * gains * gradient
        y = y + velocity
    return (y - y.mean(0)).double().numpy()


def _affinities(squared: Tensor, perplexity: float) -> Tensor:
    """Joint probabilities of neighbours `[N, N]`: each row's width by bisection, all rows at once."""
    squared = squared.clone().fill_diagonal_(math.inf)
    # A neighbourhood is measured against its nearest point, so that no row is nothing but zeros.
    squared = squared - squared.amin(1, keepdim=True)
    typical = squared.where(squared.isfinite(), torch.zeros_like(squared)).sum(1, keepdim=True) / (len(squared) - 1)
    low, high = torch.full_like(typical, -30.0), torch.full_like(typical, 30.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        shares = (-squared * middle.exp() / typical.clamp_min(1e-300)).softmax(1)
        wide = torch.special.entr(shares).sum(1, keepdim=True) > math.log(perplexity)
        low, high = middle.where(wide, low), high.where(wide, middle)
    return (shares + shares.T) / (2 * len(shares))
