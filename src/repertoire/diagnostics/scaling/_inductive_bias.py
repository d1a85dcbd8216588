"""Inductive bias that a task asks of the design of a model: the rarity of hypotheses that fit and generalise."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from repertoire.diagnostics.scaling._power_law import Numbers
from repertoire.errors import ConfigError, DataError, ShapeError

__all__ = ["InductiveBias", "counted_inductive_bias", "gaussian_process_errors", "inductive_bias"]


class InductiveBias(NamedTuple):
    """Bits of preference that a test error asks for.

    Attributes:
        bits: -log2 of the probability that a random hypothesis that fits the training data is so good.
        interval: of the bits, 95 %, from refits to resampled errors; it knows of the number of hypotheses, not of a
            distribution that does not suit.
        degrees, noncentrality, scale: of the distribution that was fitted.
    """

    bits: float
    interval: tuple[float, float]
    degrees: float
    noncentrality: float
    scale: float


def inductive_bias(errors: Numbers, target: float, *, resamples: int = 20, seed: int = 0) -> InductiveBias:
    r"""The inductive bias that a task asks for, from test errors of random hypotheses that fit the training data.

    Boopathy, Yue, Hwang, Iyer and Fiete, *Towards Exact Computation of Inductive Bias* (2024): hypotheses h are drawn
    from a base space until they fit the training data; how much information is needed to pick one of them that
    generalises is

    .. math:: -\log_2 \Pr\big(e(h) \le \varepsilon \mid h \text{ fits the training data}\big)

    Good ones are so rare that none is among those drawn, so a distribution is fitted to the errors and its tail is
    read off: a scaled non-central chi-squared one, which is what a mean of squared Gaussian differences is close to.

    It is fitted by maximum likelihood, from a start by moments; the distribution function is computed by the saddle
    point (Lugannani and Rice, 1980), whose relative error stays small however far out. The released code gives nats and
    uses an approximation of Sankaran where its distribution function underflows.

    Args:
        errors: `[S]`, mean squared test errors of hypotheses that fit, positive; at least ten. For other errors the
            distribution is only a guess.
        target: the test error to reach, positive: that of a trained model.
        resamples: refits for the interval; 0 for none (nan).
        seed: of the resampling.

    Returns:
        Bits and the fitted distribution.

    Raises:
        DataError: errors that are not positive and finite, all the same, or fewer than ten.
        ConfigError: a target that is not positive.

    Example:
        >>> import numpy as np
        >>> from repertoire.diagnostics import inductive_bias
        >>> errors = np.random.default_rng(0).chisquare(20, 2000) / 20
        >>> 10 < inductive_bias(errors, target=0.25, resamples=0).bits < 14  # 11.9 by the true distribution
        True
    """
    values = _errors(errors)
    if not 0 < target < math.inf:
        raise ConfigError(f"target must be a positive error, found {target}")
    if len(values) < 10:
        raise DataError(f"a distribution of errors needs at least ten hypotheses, found {len(values)}")
    if np.ptp(values) <= 1e-12 * values.max():
        raise DataError("all hypotheses have the same error, so there is no tail to extrapolate")
    fitted = _fit(values)
    generator = np.random.default_rng(seed)
    bits = []
    for _ in range(resamples):
        drawn = generator.choice(values, len(values))
        if np.ptp(drawn) > 0:
            bits.append(-_log_cdf(target, *_fit(drawn, fitted)) / math.log(2))
    interval = tuple(float(v) for v in np.quantile(bits, [0.025, 0.975])) if bits else (math.nan, math.nan)
    return InductiveBias(-_log_cdf(target, *fitted) / math.log(2), interval, *fitted)  # type: ignore[arg-type]


def counted_inductive_bias(errors: Numbers, target: float) -> float:
    """The inductive bias in bits by counting: exact if the errors are those of all hypotheses that fit, if these are
    finitely many and alike.

    Args:
        errors: `[S]`, at least 0.
        target: the test error to reach.

    Returns:
        -log2 of the share of errors up to the target; infinite where there is none.

    Raises:
        DataError: errors that are negative or not finite, or none.

    Example:
        >>> from repertoire.diagnostics import counted_inductive_bias
        >>> counted_inductive_bias([0.1, 0.5, 0.7, 0.9], 0.2)
        2.0
    """
    values = _errors(errors, zero=True)
    share = float((values <= target).mean())
    return -math.log2(share) if share else math.inf


def gaussian_process_errors(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    width: float = 1.0,
    samples: int = 1000,
    seed: int = 0,
) -> Tensor:
    r"""Mean squared test errors of random functions that go through the training data.

    The base space of Boopathy et al. (2024) for kernels: functions of a Gaussian process with the kernel

    .. math:: k(x, x') = \exp\big(-\lVert x - x' \rVert^2 / (2 w^2)\big)

    conditioned on the training targets. They are drawn exactly, by factors of Cholesky, where the released code
    solves for the conditional mean and covariance by gradient descent.

    Args:
        train: inputs `[n, d]` and targets `[n]` or `[n, k]`.
        test: inputs `[m, d]` and targets `[m]` or `[m, k]`.
        width: w of the kernel, positive, in units of the inputs.
        samples: number of functions.
        seed: of the functions.

    Returns:
        float64 `[samples]`.

    Raises:
        ShapeError: shapes that do not fit. DataError: not finite, or training inputs that coincide with other targets.
        ConfigError: width or samples out of range.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import gaussian_process_errors
        >>> x = torch.linspace(0, 1, 5)[:, None]
        >>> gaussian_process_errors((x, x), (x, x), samples=3).max() < 1e-6  # they go through the data
        tensor(True)
    """
    if not 0 < width < math.inf or samples < 1:
        raise ConfigError(f"width must be positive and samples at least 1, found {width} and {samples}")
    (x, y), (x_test, y_test) = _pair("train", train), _pair("test", test)
    if x.shape[1] != x_test.shape[1] or y.shape[1] != y_test.shape[1]:
        raise ShapeError(
            f"train is {list(x.shape)} -> {list(y.shape)}, test {list(x_test.shape)} -> {list(y_test.shape)}"
        )

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (-0.5 * (torch.cdist(a, b) / width).square()).exp()

    # So little noise is lost in the errors, and it keeps the factor from failing.
    jitter = 1e-10
    factor = torch.linalg.cholesky(kernel(x, x) + jitter * torch.eye(len(x), dtype=x.dtype))
    coefficients = torch.cholesky_solve(y, factor)
    if float((jitter * coefficients).abs().max()) > 1e-3 * float(y.abs().max()):
        raise DataError(
            "no smooth function goes through the training data: inputs coincide, or nearly so for this width, and "
            "their targets differ. Use a smaller width"
        )
    across = torch.linalg.solve_triangular(factor, kernel(x, x_test), upper=False)
    mean = kernel(x_test, x) @ coefficients
    values, vectors = torch.linalg.eigh(kernel(x_test, x_test) - across.T @ across)
    root = vectors * values.clamp_min(0).sqrt()
    generator = torch.Generator().manual_seed(seed)
    errors = []
    for first in range(0, samples, 256):
        count = min(256, samples - first)
        noise = torch.randn(count, len(x_test), y.shape[1], generator=generator, dtype=torch.float64)
        errors.append((mean - y_test + root @ noise).square().mean((1, 2)))
    return torch.cat(errors)


def _pair(name: str, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    x, y = (part.detach().double().cpu() for part in pair)
    y = y[:, None] if y.ndim == 1 else y
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise ShapeError(
            f"{name} must be inputs [n, d] and targets [n] or [n, k], found {[list(p.shape) for p in pair]}"
        )
    if not bool(x.isfinite().all() and y.isfinite().all()):
        raise DataError(f"{name} is not finite")
    return x, y


def _errors(errors: Numbers, *, zero: bool = False) -> np.ndarray:
    values = np.asarray(errors.detach().cpu() if isinstance(errors, Tensor) else errors, dtype=np.float64).ravel()
    bad = ~(np.isfinite(values) & ((values >= 0) if zero else (values > 0)))
    if not len(values) or bad.any():
        found = f"{values[bad][0]} at place {int(bad.nonzero()[0][0])}" if len(values) else "none"
        raise DataError(f"errors must be {'at least 0' if zero else 'positive'} and finite, found {found}")
    return values


def _fit(values: np.ndarray, start: tuple[float, float, float] | None = None) -> tuple[float, float, float]:
    """Degrees, noncentrality and scale of the largest likelihood."""
    from scipy.optimize import minimize

    size = values.mean()
    u = values / size
    if start is None:
        # By moments of a central distribution, half of whose mean is then taken for noncentral.
        df = 2 / u.var()
        starts = [(df, 0.05 * df, 1 / (1.05 * df)), (df / 2, df / 2, 1 / df)]
    else:
        starts = [(start[0], start[1], start[2] / size)]

    def loss(p: np.ndarray) -> float:
        df, nc, scale = np.exp(p)
        with np.errstate(all="ignore"):
            value = math.log(scale) - float(_log_density(u / scale, df, nc).mean())
        return value if math.isfinite(value) else 1e6

    def run(begin: tuple[float, float, float]) -> tuple[float, np.ndarray]:
        start = np.log(np.maximum(begin, 1e-6))
        found = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 300, "xatol": 1e-3, "fatol": 1e-6})
        return float(found.fun), found.x

    _, best = min((run(begin) for begin in starts), key=lambda pair: pair[0])
    df, nc, scale = (float(v) for v in np.exp(best))
    return df, nc, scale * float(size)


def _log_density(x: np.ndarray, df: float, nc: float) -> np.ndarray:
    """Logarithm of the non-central chi-squared density, also where its Bessel function is too small for a float."""
    from scipy.special import ive

    order = df / 2 - 1
    z = np.sqrt(nc * x)
    if order > 30:
        # The expansion of Debye, uniform in z, up to terms in 1 / order ** 2.
        ratio = z / order
        root = np.sqrt(1 + ratio * ratio)
        bessel = order * (root + np.log(ratio / (1 + root))) - 0.5 * np.log(2 * np.pi * order * root) - z
        bessel += np.log1p((3 / root - 5 / root**3) / (24 * order))
    else:
        bessel = np.log(ive(order, z))
    return np.asarray(bessel - 0.5 * np.square(np.sqrt(x) - math.sqrt(nc)) + (order / 2) * np.log(x / nc) - math.log(2))


def _log_cdf(error: float, df: float, nc: float, scale: float) -> float:
    """Logarithm of the distribution function at an error, by the saddle point."""
    from scipy.special import log_ndtr
    from scipy.stats import ncx2

    x = error / scale
    mean = df + nc
    plain = float(ncx2.logcdf(x, df, nc))
    if plain > -20 or x >= mean:  # where scipy's sums have all their digits
        return plain
    # K(t) = nc t / (1 - 2t) - df/2 log(1 - 2t), and K'(t) = x is quadratic in s = 1 - 2t.
    s = (df + math.sqrt(df * df + 4 * x * nc)) / (2 * x)
    t = (1 - s) / 2
    cumulant = nc * t / s - df / 2 * math.log(s)
    second = 4 * nc / s**3 + 2 * df / s**2
    w = -math.sqrt(2 * (t * x - cumulant))
    v = t * math.sqrt(second)
    # log of Phi(w) + phi(w) (1/w - 1/v), with phi taken out: both are tiny, their ratio is not.
    log_phi = -0.5 * w * w - 0.5 * math.log(2 * math.pi)
    return log_phi + math.log(math.exp(float(log_ndtr(w)) - log_phi) + 1 / w - 1 / v)
