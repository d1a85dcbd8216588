"""Whitening: rows transformed so that their features are uncorrelated and of equal variance."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from repertoire.errors import ConfigError
from repertoire.ops._covariance import covariance

__all__ = ["Whitening", "newton_whiten", "whiten"]

Whitening = Literal["cholesky", "zca"]


def whiten(x: Tensor, kind: Whitening = "cholesky", eps: float = 1e-4) -> Tensor:
    r"""Rows less their mean, transformed so that their covariance is the identity.

    With the covariance :math:`\Sigma` and its mean variance :math:`v = \operatorname{tr}\Sigma / d`:

    .. math:: W (x - \mu), \qquad W^\top W = \left((1 - \epsilon)\,\Sigma + \epsilon\,v I\right)^{-1}

    "cholesky": W is the inverse of the lower Cholesky factor, as in Siarohin et al., *Whitening and Coloring Batch
    Transform for GANs* (2019); "zca": W is the symmetric root of the inverse, as in Huang et al., *Decorrelated Batch
    Normalization* (2018): of all whitened rows, the ones nearest to the rows themselves. The backward pass of "zca" is
    written out, since that of an eigenvalue decomposition divides by differences of eigenvalues.

    Shrinking towards :math:`v I` makes the result independent of the scale of x, and lets there be fewer rows than
    features.

    Args:
        x: float32 or float64 `[..., N, d]`, each `[N, d]` whitened by itself.
        kind: "cholesky" (default, the cheaper one) or "zca".
        eps: in [0, 1); with 0, N must exceed d.

    Returns:
        float `[..., N, d]`; all zero where all rows are the same. Not a number where the covariance has no inverse, or
        the input is not finite.

    Raises:
        ConfigError: an unknown kind, or eps out of range.

    Example:
        >>> import torch
        >>> from repertoire.ops import covariance, whiten
        >>> mixed = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 5.0]])
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) @ mixed
        >>> covariance(whiten(x, eps=0.0))[1].allclose(torch.eye(3), atol=1e-5)
        True
    """
    check_whitening(kind, eps)
    centred, sigma = covariance(x)
    variance = sigma.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    # Where nothing varies there is nothing to divide by, and the centred rows are zero.
    variance = variance.masked_fill(variance == 0, 1.0)
    identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    shrunk = (1 - eps) * (sigma / variance) + eps * identity
    scaled = centred * variance.rsqrt()
    if kind == "zca":
        return scaled @ _InverseRoot.apply(shrunk)
    # Unlike cholesky, cholesky_ex does not wait for the device to say that it failed.
    factor, failed = torch.linalg.cholesky_ex(shrunk)
    factor = factor.masked_fill((failed != 0)[..., None, None], torch.nan)
    return torch.linalg.solve_triangular(factor, scaled.mT, upper=False).mT


def check_whitening(kind: str, eps: float) -> None:
    """Raises `ConfigError` unless the arguments of `whiten` are in range."""
    if kind not in get_args(Whitening):
        raise ConfigError(f"whitening must be 'cholesky' or 'zca', found {kind!r}")
    if not 0 <= eps < 1:
        raise ConfigError(f"eps must be in [0, 1), found {eps}")


class _InverseRoot(torch.autograd.Function):
    """The inverse of the symmetric square root of positive definite matrices `[..., d, d]`."""

    @staticmethod
    def forward(ctx: Any, sigma: Tensor) -> Tensor:
        # An eigenvalue decomposition raises at what is not finite; here it is passed on as not a number.
        finite = sigma.isfinite().all(-1).all(-1)[..., None, None]
        values, vectors = torch.linalg.eigh(sigma.where(finite, 0.0))
        root = values.sqrt().where(finite.squeeze(-1), torch.nan)
        ctx.save_for_backward(root, vectors)
        return (vectors / root[..., None, :]) @ vectors.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        root, vectors = ctx.saved_tensors
        # With r = sqrt(lambda), the difference quotient (1/r_i - 1/r_j) / (lambda_i - lambda_j) without differences.
        product = root[..., :, None] * root[..., None, :]
        quotient = -1.0 / (product * (root[..., :, None] + root[..., None, :]))
        symmetric = 0.5 * (grad + grad.mT)
        return vectors @ (quotient * (vectors.mT @ symmetric @ vectors)) @ vectors.mT


def newton_whiten(x: Tensor, iterations: int = 4) -> Tensor:
    r"""Rows less their mean, whitened approximately by Newton's iteration: iterative normalisation.

    Huang et al., *Iterative Normalization: Beyond Standardization towards Efficient Whitening* (2019). With the
    covariance :math:`\Sigma` and :math:`\Sigma_N = \Sigma / \operatorname{tr}\Sigma`:

    .. math:: P_0 = I, \qquad P_{k+1} = \tfrac12 (3 P_k - P_k^3 \Sigma_N), \qquad
        \hat{x} = P_T (x - \mu) / \sqrt{\operatorname{tr}\Sigma}

    computed in the coupled form (of :math:`P_k` and :math:`P_k \Sigma_N` at once), in which rounding errors do not grow
    from step to step. With T going to infinity it is "zca" whitening. After a few iterations the large eigenvalues of
    the covariance are near one and the small ones still below, down to zero for directions that are not used: no
    division can explode.

    Args:
        x: float32 or float64 `[..., N, d]`, each `[N, d]` whitened by itself.
        iterations: T, 0 or more; 4 in the papers that use it for training.

    Returns:
        float `[..., N, d]`; all zero where all rows are the same.

    Raises:
        ConfigError: a negative number of iterations.

    Example:
        >>> import torch
        >>> from repertoire.ops import covariance, newton_whiten
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 3.0])
        >>> covariance(newton_whiten(x, iterations=10))[1].allclose(torch.eye(3), atol=1e-4)
        True
    """
    if iterations < 0:
        raise ConfigError(f"iterations must be 0 or more, found {iterations}")
    centred, sigma = covariance(x)
    trace = sigma.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    trace = trace.masked_fill(trace == 0, 1.0)
    identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    root, inverse = sigma / trace, identity.expand_as(sigma)
    for _ in range(iterations):
        step = 1.5 * identity - 0.5 * (inverse @ root)
        root, inverse = root @ step, step @ inverse
    return centred @ inverse * trace.rsqrt()
