"""The trace of a Hessian, from products with random vectors."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from repertoire.diagnostics.landscape._lanczos import Operator
from repertoire.errors import ConfigError, UnknownName

__all__ = ["Trace", "hessian_trace"]


class Trace(NamedTuple):
    """An estimate of a trace.

    Attributes:
        value: the estimate; without bias.
        error: its standard error, 0 where it is exact and nan where one sample says nothing of it.
    """

    value: float
    error: float


def hessian_trace(
    hessian: Operator, samples: int = 30, *, method: Literal["hutch++", "hutchinson"] = "hutch++", seed: int = 0
) -> Trace:
    r"""The trace of a Hessian: the sum of the curvatures of the loss in all directions.

    Hutchinson, *A Stochastic Estimator of the Trace of the Influence Matrix* (1990), with random signs g:

    .. math:: \operatorname{tr} H \approx \frac{1}{m} \sum_{j=1}^{m} g_j^\top H g_j

    and Meyer, Musco, Musco and Woodruff, *Hutch++: Optimal Stochastic Trace Estimation* (2021), which spends a third of
    the products on an orthonormal basis Q of what H does to random vectors, takes the trace there exactly and estimates
    only what is left:

    .. math:: \operatorname{tr} Q^\top H Q +
              \frac{3}{m} \sum_{j=1}^{m/3} g_j^\top (I - Q Q^\top) H (I - Q Q^\top) g_j

    A Hessian has few large eigenvalues, which is where Hutch++ is the better one; its error falls like 1/m rather than
    like one over the root of m.

    Args:
        hessian: a :class:`repertoire.diagnostics.Hessian`, or any symmetric operator with `dimension`, `like` and `@`.
        samples: number of products m, at least 1, and at least 3 for Hutch++. Memory is that of two thirds of m vectors
            as long as the weights.
        method: "hutch++" or "hutchinson".
        seed: of the signs.

    Returns:
        The estimate and its standard error.

    Raises:
        ConfigError: too few samples. UnknownName: no such method. And the errors of the Hessian.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import Hessian, hessian_trace
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> batches = [(torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.zeros(2, 1))]
        >>> round(hessian_trace(Hessian(model, batches, torch.nn.functional.mse_loss), 6).value, 3)
        10.0
    """
    if method not in ("hutch++", "hutchinson"):
        raise UnknownName("method", method, ["hutch++", "hutchinson"])
    least = 3 if method == "hutch++" else 1
    if samples < least:
        raise ConfigError(f"samples must be at least {least} for {method}, found {samples}")
    generator = torch.Generator().manual_seed(seed)
    if method == "hutchinson":
        return _mean([_form(hessian, _signs(hessian, 1, generator)[:, 0]) for _ in range(samples)])
    third = samples // 3
    # Two thirds at most may go to the basis, or products are spent on a space that is spanned already.
    basis, _ = torch.linalg.qr(hessian @ _signs(hessian, min(third, hessian.dimension), generator))
    inside = float((basis * (hessian @ basis)).sum(dtype=torch.float64))
    if basis.shape[1] >= hessian.dimension:
        return Trace(inside, 0.0)
    signs = _signs(hessian, samples - 2 * third, generator)
    rest = [_form(hessian, g - basis @ (basis.T @ g)) for g in signs.unbind(1)]
    mean = _mean(rest)
    return Trace(inside + mean.value, mean.error)


def _signs(hessian: Operator, count: int, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, (hessian.dimension, count), generator=generator)
    return (2 * signs - 1).to(hessian.like)


def _form(hessian: Operator, vector: Tensor) -> float:
    return float(torch.dot(vector.double(), (hessian @ vector).double()))


def _mean(values: list[float]) -> Trace:
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Trace(mean, math.nan)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Trace(mean, math.sqrt(variance / len(values)))
