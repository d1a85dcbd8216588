"""Eigenvalues of a symmetric operator that only multiplies: the largest ones, and how all of them are spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from repertoire.errors import ConfigError

__all__ = ["Eigenvalues", "Operator", "SpectralDensity", "hessian_eigenvalues", "spectral_density"]


class Operator(Protocol):
    """A symmetric matrix `[P, P]` that is known by its products; `repertoire.diagnostics.Hessian` is one."""

    @property
    def dimension(self) -> int: ...

    @property
    def like(self) -> Tensor:
        """A tensor with the dtype and the device of the vectors it multiplies."""

    def __matmul__(self, vectors: Tensor) -> Tensor: ...


class Eigenvalues(NamedTuple):
    """The largest eigenvalues of a Hessian.

    Attributes:
        values: float64 `[k]`, descending.
        vectors: `[P, k]`, of length one.
        residuals: float64 `[k]`, a bound on how far each value is from an eigenvalue.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor


class SpectralDensity(NamedTuple):
    """Distribution of the eigenvalues of a Hessian, as a quadrature rule.

    Attributes:
        nodes: float64 `[n]`, ascending: where eigenvalues are.
        weights: float64 `[n]`, which share of the eigenvalues is near each node; their sum is one.
    """

    nodes: Tensor
    weights: Tensor

    def density(self, at: Tensor, width: float) -> Tensor:
        """The density at some values, each node blurred with a Gaussian of this standard deviation."""
        if not width > 0:
            raise ConfigError(f"width must be positive, found {width}")
        at = at.to(self.nodes)
        bumps = (-0.5 * ((at[:, None] - self.nodes) / width).square()).exp() / (width * math.sqrt(2 * math.pi))
        return bumps @ self.weights

    def mean(self, power: int = 1) -> float:
        """The mean of a power of the eigenvalues; the trace is the mean times the dimension."""
        return float((self.weights * self.nodes**power).sum())

    def share(self, low: float = -math.inf, high: float = math.inf) -> float:
        """Share of the eigenvalues in an interval; of negative curvature, `share(high=-epsilon)`."""
        return float(self.weights[(self.nodes >= low) & (self.nodes <= high)].sum())


def hessian_eigenvalues(
    hessian: Operator, k: int = 1, *, iterations: int = 100, tolerance: float = 1e-3, seed: int = 0
) -> Eigenvalues:
    r"""The largest eigenvalues of a Hessian: the curvature of the loss along its steepest directions.

    Lanczos, *An Iteration Method for the Solution of the Eigenvalue Problem* (1950), with full reorthogonalisation: it
    builds an orthonormal basis Q of the powers of H on a random vector and gives the eigenvalues of
    :math:`Q^\top H Q`, which is tridiagonal. It stops when each of the k residuals
    :math:`\lVert H q - \lambda q \rVert` is below `tolerance` times the largest value in modulus. Gradient descent is
    stable for learning rates below two over the largest.

    Args:
        hessian: a :class:`repertoire.diagnostics.Hessian`, or any symmetric operator with `dimension`, `like` and `@`.
        k: how many, at least 1.
        iterations: at most so many products for a search; each keeps a vector as long as the weights. For k above 1
            there are two searches or more: another looks whether anything larger is left beside what was found.
        tolerance: relative size of the residuals at which it stops.
        seed: of the start.

    Returns:
        Values, vectors and residuals. A value that occurs several times is given as often.

    Raises:
        ConfigError: k below 1 or above the dimension, or fewer iterations than k. And the errors of the Hessian.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import Hessian, hessian_eigenvalues
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> batches = [(torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.zeros(2, 1))]
        >>> hessian_eigenvalues(Hessian(model, batches, torch.nn.functional.mse_loss), k=2).values.round(decimals=3)
        tensor([9., 1.], dtype=torch.float64)
    """
    if not 1 <= k <= hessian.dimension:
        raise ConfigError(f"k must lie between 1 and the number of weights, {hessian.dimension}, found {k}")
    if iterations < k:
        raise ConfigError(f"iterations must be at least k = {k}, found {iterations}")
    found = _largest(hessian, k, iterations, tolerance, seed)
    # A start that hardly sees an eigenvector may pass over its value, and sees no value twice. What is orthogonal to
    # all that was found must hold nothing larger.
    rounds = k if 1 < k < hessian.dimension else 0
    for number in range(1, rounds + 1):
        other = _largest(hessian, 1, iterations, tolerance, seed + number, avoid=list(found.vectors.unbind(1)))
        if other.values[0] <= found.values[-1] + tolerance * found.values.abs().max():
            break
        values = torch.cat([found.values, other.values])
        order = values.argsort(descending=True, stable=True)[:k]
        found = Eigenvalues(
            values[order],
            torch.cat([found.vectors, other.vectors], 1)[:, order],
            torch.cat([found.residuals, other.residuals])[order],
        )
    return found


def _largest(
    hessian: Operator, k: int, iterations: int, tolerance: float, seed: int, avoid: Sequence[Tensor] = ()
) -> Eigenvalues:
    """The k largest eigenvalues on what is orthogonal to some vectors, as one start finds them."""
    lanczos = _Lanczos(hessian, seed, avoid=avoid)
    scale = 0.0
    while True:
        lanczos.step()
        values, vectors = lanczos.ritz()
        size = len(values)
        done = size == min(iterations, hessian.dimension - len(avoid))
        scale = max(scale, float(values.abs().max()))
        if size >= k:
            residuals = lanczos.beta * vectors[-1].abs()
            if done or bool((residuals[-k:] <= tolerance * scale).all()):
                break
    top = torch.arange(size - 1, size - 1 - k, -1)
    basis = torch.stack(lanczos.basis[:size], 1)
    return Eigenvalues(values[top], basis @ vectors[:, top].to(basis), residuals[top])


def spectral_density(hessian: Operator, *, probes: int = 8, steps: int = 40, seed: int = 0) -> SpectralDensity:
    r"""Estimates the distribution of the eigenvalues of a Hessian: stochastic Lanczos quadrature.

    Ghorbani, Krishnan and Xiao, *An Investigation into Neural Net Optimization via Hessian Eigenvalue Density* (2019).
    For a random direction v the eigenvalues of its tridiagonal matrix :math:`T`, weighted with the squared first
    components of their eigenvectors, are a Gauss quadrature of the spectrum as v sees it; the mean over directions is
    without bias. Moments up to `2 * steps - 1` of each direction are exact.

    Args:
        hessian: a :class:`repertoire.diagnostics.Hessian`, or any symmetric operator with `dimension`, `like` and `@`.
        probes: number of directions, at least 1.
        steps: products for each; with the dimension and one direction, nodes are all eigenvalues.
        seed: of the directions.

    Returns:
        Nodes and weights; `density` makes a curve of them, `mean(1)` times the dimension is the trace.

    Raises:
        ConfigError: probes or steps below 1. And the errors of the Hessian.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import Hessian, spectral_density
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> batches = [(torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.zeros(2, 1))]
        >>> spectral_density(Hessian(model, batches, torch.nn.functional.mse_loss), probes=1).nodes.round(decimals=3)
        tensor([1., 9.], dtype=torch.float64)
    """
    if probes < 1 or steps < 1:
        raise ConfigError(f"probes and steps must be at least 1, found {probes} and {steps}")
    nodes, weights = [], []
    for probe in range(probes):
        lanczos = _Lanczos(hessian, seed + probe, restart=False)
        while len(lanczos.alphas) < min(steps, hessian.dimension) and not lanczos.exhausted:
            lanczos.step()
        values, vectors = lanczos.ritz()
        nodes.append(values)
        weights.append(vectors[0].square() / probes)
    every = torch.cat(nodes)
    order = every.argsort()
    return SpectralDensity(every[order], torch.cat(weights)[order])


class _Lanczos:
    """The three-term recurrence, with each new vector made orthogonal to all before, twice."""

    def __init__(self, operator: Operator, seed: int, *, restart: bool = True, avoid: Sequence[Tensor] = ()) -> None:
        self.operator = operator
        self.avoid = list(avoid)
        self.generator = torch.Generator().manual_seed(seed)
        self.restart = restart
        self.exhausted = False
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.beta = 0.0
        self.basis: list[Tensor] = []
        start = self._orthogonal(self._random())
        self.basis.append(start / start.norm())

    def step(self) -> None:
        """One product, and one more vector in the basis."""
        last = self.basis[-1]
        product = self.operator @ last
        alpha = float(torch.dot(last.double(), product.double()))
        scale = float(product.norm())
        rest = self._orthogonal(product)
        self.alphas.append(alpha)
        self.beta = float(rest.norm())
        if self.beta <= 100 * torch.finfo(last.dtype).eps * scale or scale == 0:
            # The powers of H reach no further from this start. Another start, coupled by a zero, finds the rest.
            self.exhausted = True
            self.beta = 0.0
            if not self.restart or len(self.basis) + len(self.avoid) >= self.operator.dimension:
                return
            rest = self._orthogonal(self._random())
        self.betas.append(self.beta)
        self.basis.append(rest / rest.norm())

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of the tridiagonal matrix so far, ascending."""
        size = len(self.alphas)
        off = torch.tensor(self.betas[: size - 1], dtype=torch.float64)
        matrix = torch.diag(torch.tensor(self.alphas, dtype=torch.float64))
        matrix += torch.diag(off, 1) + torch.diag(off, -1)
        values, vectors = torch.linalg.eigh(matrix)
        return values, vectors

    def _random(self) -> Tensor:
        # Drawn on the CPU, so that a seed means the same on every device.
        like = self.operator.like
        return torch.randn(self.operator.dimension, generator=self.generator, dtype=torch.float64).to(like)

    def _orthogonal(self, vector: Tensor) -> Tensor:
        for _ in range(2):
            for other in (*self.avoid, *self.basis):
                vector = vector - torch.dot(other, vector) * other
        return vector
