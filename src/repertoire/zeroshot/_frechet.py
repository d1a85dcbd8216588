"""Classes that were never trained on, by their distances to those that were."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from scipy.optimize import linprog

from repertoire.errors import ShapeError
from repertoire.ranges import AtLeast, checked

__all__ = ["expected_squares", "frechet_mean", "next_class", "reachable"]


def expected_squares(probabilities: Any, distances: Any) -> np.ndarray:
    r"""The mean squared distance of each answer to the truth, if the probabilities are right:
    :math:`\sum_i p_i\, d(y, i)^2`.

    Args:
        probabilities: float `[N, L]`, of the classes that a model knows.
        distances: float `[A, L]`, of each answer to each of them.

    Returns:
        float64 `[N, A]`.

    Raises:
        ShapeError: shapes that do not fit, distances that are negative or no numbers.

    Example:
        >>> from repertoire.zeroshot import expected_squares
        >>> expected_squares([[0.5, 0.5]], [[0, 2], [1, 1], [2, 0]])
        array([[2., 1., 2.]])
    """
    p, d = _checked(probabilities, distances)
    return p @ np.square(d).T


@checked
def frechet_mean(probabilities: Any, distances: Any, *, tile: Annotated[int, AtLeast(1)] = 4096) -> np.ndarray:
    r"""The class with the least mean squared distance to what a model says: also one that it was never trained on.

    Roberts et al., *Geometry-Aware Adaptation for Pretrained Models* (2023). With the probabilities p of the L classes
    that a model knows, and a distance between classes, from a taxonomy or from embeddings,

    .. math:: \hat y = \arg\min_{y} \sum_{i=1}^{L} p_i\, d(y, i)^2

    over all answers y, which may be many more. Nothing is trained. If the model is certain, and the class it names is
    an answer, this is what it names; how well it does between classes depends on probabilities that mean what they say.

    Args:
        probabilities: float `[N, L]`.
        distances: float `[A, L]`, of each answer to each class that the model knows.
        tile: how many answers are looked at at a time, so that there may be very many.

    Returns:
        The answer for each row, int64 `[N]`: a row of the distances; of equal ones the first.

    Raises:
        ShapeError: shapes that do not fit, distances that are negative or no numbers.

    Example:
        >>> from repertoire.zeroshot import frechet_mean
        >>> distances = [[0, 4], [1, 3], [2, 2], [3, 1], [4, 0]]  # five answers on a line, the ends of which are known
        >>> frechet_mean([[1.0, 0.0], [0.5, 0.5], [0.3, 0.7]], distances)
        array([0, 2, 3])
    """
    p, d = _checked(probabilities, distances)
    best, least = np.zeros(len(p), dtype=np.int64), np.full(len(p), np.inf)
    for start in range(0, len(d), tile):
        found = p @ np.square(d[start : start + tile]).T
        first = found.argmin(1)
        value = found[np.arange(len(p)), first]
        best = np.where(value < least, first + start, best)
        least = np.minimum(value, least)
    return best


def reachable(distances: Any, observed: Any) -> np.ndarray:
    """Which classes `frechet_mean` can name at all, for some probabilities of the classes that a model knows.

    The locus of the Fréchet mean in Roberts et al., *Geometry-Aware Adaptation for Pretrained Models* (2023), exactly.
    A class on a shortest path between two known ones is reachable; of any other a linear programme says whether there
    are probabilities under which no class is nearer. In a tree all of whose nodes are classes, the first rule says all.

    Args:
        distances: float `[n, n]` between all classes.
        observed: the classes that the model knows, as positions.

    Returns:
        bool `[n]`.

    Raises:
        ShapeError: no square matrix of distances, or positions outside it.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import reachable
        >>> line = abs(np.arange(5)[:, None] - np.arange(5))
        >>> reachable(line, [1, 3])
        array([False,  True,  True,  True, False])
    """
    d, known = _square(distances, observed)
    return _reached(d, known, np.zeros(len(d), dtype=bool))


def next_class(distances: Any, observed: Any) -> int:
    """The class that a model should be taught next, so that as many classes as possible come within reach.

    The active choice of Roberts et al., *Geometry-Aware Adaptation for Pretrained Models* (2023), greedily: the class
    with which most classes are `reachable`; of equal ones the first. It looks at each class that is not known, at the
    cost of up to n linear programmes each: meant for hundreds of classes.

    Args:
        distances: float `[n, n]` between all classes.
        observed: the classes that the model knows, as positions.

    Raises:
        ShapeError: no square matrix of distances, positions outside it, or no class left.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import next_class
        >>> line = abs(np.arange(5)[:, None] - np.arange(5))
        >>> next_class(line, [1, 3])
        0
        >>> next_class(line, [0])
        4
    """
    d, known = _square(distances, observed)
    left = np.setdiff1d(np.arange(len(d)), known)
    if not len(left):
        raise ShapeError(f"all {len(d)} classes are known: there is none to teach")
    before = _reached(d, known, np.zeros(len(d), dtype=bool))
    # What is reached stays so, since a class that is known may have no probability.
    counts = [_reached(d, np.append(known, each), before).sum() for each in left]
    return int(left[int(np.argmax(counts))])


def _reached(d: np.ndarray, known: np.ndarray, found: np.ndarray) -> np.ndarray:
    """`found`, and what else is reached from the known ones."""
    near = d[:, known]
    slack = 1e-9 * max(float(d.max()), 1e-300)
    # Between two of them: the way through the class is no longer than the way past it.
    between = np.zeros(len(d), dtype=bool)
    for first in range(len(known)):
        through = near[:, first : first + 1] + near
        between |= (through <= near[known[first]] + slack).any(1)
    found = found | between
    squares = np.square(near)
    for each in np.flatnonzero(~found).tolist():
        found[each] = _attainable(squares, each)
    return found


def _attainable(squares: np.ndarray, each: int) -> bool:
    """Whether some probabilities make no other class nearer: the value of a game of two players is not negative."""
    scale = max(float(squares.max()), 1e-300)
    lead = (np.delete(squares, each, 0) - squares[each]) / scale
    if not len(lead):
        return True
    width = squares.shape[1]
    cost = np.append(np.zeros(width), -1.0)
    below = np.column_stack([-lead, np.ones(len(lead))])
    bounds = [(0, None)] * width + [(None, None)]
    found = linprog(cost, below, np.zeros(len(lead)), np.append(np.ones(width), 0.0)[None], [1.0], bounds)
    return bool(found.status == 0 and -found.fun >= -1e-9)


def _checked(probabilities: Any, distances: Any) -> tuple[np.ndarray, np.ndarray]:
    p, d = np.asarray(probabilities, dtype=np.float64), np.asarray(distances, dtype=np.float64)
    if p.ndim != 2 or d.ndim != 2 or p.shape[1] != d.shape[1] or not d.size:
        raise ShapeError(f"probabilities must be [N, L] and distances [A, L], found {[*p.shape]} and {[*d.shape]}")
    if not np.isfinite(d).all() or (d < 0).any() or not np.isfinite(p).all():
        raise ShapeError("distances must be finite and 0 or more, and probabilities finite")
    return p, d


def _square(distances: Any, observed: Any) -> tuple[np.ndarray, np.ndarray]:
    d, known = np.asarray(distances, dtype=np.float64), np.unique(np.asarray(observed))
    if d.ndim != 2 or d.shape[0] != d.shape[1] or not np.isfinite(d).all() or (d < 0).any():
        raise ShapeError(f"distances must be finite and 0 or more, [n, n], found {[*d.shape]}")
    if not len(known) or known.dtype.kind not in "iu" or known[0] < 0 or known[-1] >= len(d):
        raise ShapeError(f"observed must be positions from 0 to {len(d) - 1}, found {known.tolist()}")
    return d, known
