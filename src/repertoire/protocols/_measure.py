"""What a matrix of accuracies says: what was learned, kept, and forgotten."""

from __future__ import annotations

import numpy as np

from repertoire.errors import ShapeError

__all__ = ["measure"]


def measure(matrix: np.ndarray) -> dict[str, float]:
    r"""Summarises the accuracies after each stage on the test samples of each stage.

    With :math:`R_{t,i}` the accuracy after stage t on stage i, of T stages:

    - "accuracy": :math:`\frac{1}{T} \sum_i R_{T,i}`, the average at the end;
    - "accuracy_of_curve": the mean over t of :math:`\frac{1}{t} \sum_{i \le t} R_{t,i}`, the average on the way;
    - "forgetting": :math:`\frac{1}{T-1} \sum_{i<T} \left(\max_{t<T} R_{t,i} - R_{T,i}\right)`, Chaudhry et al.,
      *Riemannian Walk for Incremental Learning: Understanding Forgetting and Intransigence* (2018);
    - "backward_transfer": :math:`\frac{1}{T-1} \sum_{i<T} (R_{T,i} - R_{i,i})`, Lopez-Paz and Ranzato, *Gradient
      Episodic Memory for Continual Learning* (2017);
    - "learning": the mean of :math:`R_{i,i}`, how well each stage was learned when it came;
    - "zero_shot": the mean of :math:`R_{i-1,i}`, on a stage before its turn, where that was measured.

    Of a single stage, nothing can be forgotten: only the first two and "learning" are given.

    Args:
        matrix: float `[T, T]`, NaN where nothing was measured, which must not be on or below the diagonal.

    Raises:
        ShapeError: the matrix is not square, empty, or has gaps where there can be none.

    Example:
        >>> import numpy as np
        >>> from repertoire.protocols import measure
        >>> found = measure(np.array([[0.9, np.nan], [0.5, 0.8]]))
        >>> {name: round(value, 3) for name, value in found.items()}  # doctest: +NORMALIZE_WHITESPACE
        {'accuracy': 0.65, 'accuracy_of_curve': 0.775, 'learning': 0.85, 'forgetting': 0.4, 'backward_transfer': -0.4}
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ShapeError(f"matrix must be [T, T], accuracy after each of T stages on each, found {list(matrix.shape)}")
    count = len(matrix)
    known = np.tril(np.ones_like(matrix, dtype=bool))
    if not np.isfinite(matrix[known]).all():
        raise ShapeError("matrix must have a number for every stage that was learned: it has gaps below the diagonal")
    learned = np.where(known, matrix, 0)
    found = {
        "accuracy": float(matrix[-1].mean()),
        "accuracy_of_curve": float((learned.sum(1) / np.arange(1, count + 1)).mean()),
        "learning": float(matrix.diagonal().mean()),
    }
    if count == 1:
        return found
    best = np.where(known, matrix, -np.inf)[:-1, :-1].max(0)
    found["forgetting"] = float((best - matrix[-1, :-1]).mean())
    found["backward_transfer"] = float((matrix[-1] - matrix.diagonal())[:-1].mean())
    ahead = matrix.diagonal(1)
    if np.isfinite(ahead).all():
        found["zero_shot"] = float(ahead.mean())
    return found
