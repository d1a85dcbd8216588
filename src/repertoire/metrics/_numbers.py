"""Of predicted numbers: errors, variance explained, rank correlation."""

from __future__ import annotations

import math

import numpy as np

from repertoire.metrics._arrays import Values, numbers, same_length

__all__ = ["mean_absolute_error", "mean_squared_error", "r2", "spearman"]


def mean_absolute_error(predicted: Values, true: Values) -> float:
    """The mean of the absolute differences.

    Args:
        predicted: numbers `[N]` or `[N, K]`.
        true: of the same shape.

    Returns:
        0 or more; NaN without samples.

    Raises:
        ShapeError: shapes that do not fit, or NaN.

    Example:
        >>> from repertoire.metrics import mean_absolute_error
        >>> mean_absolute_error([1.0, 2.0], [1.0, 4.0])
        1.0
    """
    predicted, true = _both(predicted, true)
    return float(np.abs(predicted - true).mean()) if true.size else math.nan


def mean_squared_error(predicted: Values, true: Values) -> float:
    """The mean of the squared differences.

    Args:
        predicted: numbers `[N]` or `[N, K]`.
        true: of the same shape.

    Returns:
        0 or more; NaN without samples.

    Raises:
        ShapeError: shapes that do not fit, or NaN.

    Example:
        >>> from repertoire.metrics import mean_squared_error
        >>> mean_squared_error([1.0, 2.0], [1.0, 4.0])
        2.0
    """
    predicted, true = _both(predicted, true)
    return float(np.square(predicted - true).mean()) if true.size else math.nan


def r2(predicted: Values, true: Values) -> float:
    r"""The share of the variance that is explained: one for a perfect prediction, zero for that of the mean.

    The coefficient of determination, for `[N, K]` the mean over the K columns:

    .. math:: 1 - \frac{\sum_i (y_i - \hat y_i)^2}{\sum_i (y_i - \bar y)^2}

    Args:
        predicted: numbers `[N]` or `[N, K]`.
        true: of the same shape.

    Returns:
        At most 1, without a lower bound. NaN where a column does not vary, or without samples.

    Raises:
        ShapeError: shapes that do not fit, or NaN.

    Example:
        >>> from repertoire.metrics import r2
        >>> r2([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
        0.5
    """
    predicted, true = _both(predicted, true)
    if not true.size or (true == true[0]).all(0).any():
        return math.nan
    rest, variance = np.square(true - predicted).sum(0), np.square(true - true.mean(0)).sum(0)
    return float(np.mean(1 - rest / variance))


def spearman(x: Values, y: Values) -> float:
    """The correlation of ranks: one where y grows whenever x does, minus one where it falls.

    Spearman, *The Proof and Measurement of Association between Two Things* (1904). Equal values share the mean of their
    ranks; for `[N, K]` it is the mean over the K columns.

    Args:
        x: numbers `[N]` or `[N, K]`; infinite ones are allowed.
        y: of the same shape.

    Returns:
        From -1 to 1; NaN where a column of x or y does not vary, or without samples.

    Raises:
        ShapeError: shapes that do not fit, or NaN.

    Example:
        >>> from repertoire.metrics import spearman
        >>> spearman([1.0, 2.0, 3.0], [1.0, 10.0, 100.0])
        1.0
    """
    x, y = _both(x, y)
    if not x.size or (x == x[0]).all(0).any() or (y == y[0]).all(0).any():
        return math.nan
    a, b = (_ranks(values.reshape(len(values), -1)) for values in (x, y))
    a, b = a - a.mean(0), b - b.mean(0)
    return float(((a * b).sum(0) / np.sqrt(np.square(a).sum(0) * np.square(b).sum(0))).mean())


def _ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value in its column; equal ones share the mean of theirs."""
    found = np.empty(values.shape)
    for column in range(values.shape[1]):
        _, index, counts = np.unique(values[:, column], return_inverse=True, return_counts=True)
        found[:, column] = (np.cumsum(counts) - (counts - 1) / 2)[index]
    return found


def _both(first: Values, second: Values) -> tuple[np.ndarray, np.ndarray]:
    one, other = numbers("the first argument", first, (1, 2)), numbers("the second argument", second, (1, 2))
    same_length(**{"the first argument": one, "the second argument": other})
    return one, other
