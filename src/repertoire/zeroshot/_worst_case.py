"""How wrong predictions must be if classes are told apart by attributes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import block_diag, csr_matrix, eye, hstack, kron, vstack

from repertoire.errors import ConfigError, ShapeError
from repertoire.ranges import AtLeast, checked

__all__ = ["WorstCase", "worst_case_error", "worst_error_of"]


@dataclass(frozen=True)
class WorstCase:
    """What the best rule must suffer, and from whom.

    Attributes:
        error: the smallest error that a rule can promise, from 0 to 1 - 1/C.
        rule: the rule that keeps the promise: the probability of each class for each vector of attributes, float64
            `[2^a, C]`. Vector v has attribute m if bit m of v is set.
        adversary: the distribution of attribute vectors in each class under which no rule does better, `[C, 2^a]`.
    """

    error: float
    rule: np.ndarray
    adversary: np.ndarray


@checked
def worst_case_error(attributes: Any, prior: Any = None, *, largest: Annotated[int, AtLeast(1)] = 12) -> WorstCase:
    r"""The error that no rule from attributes to classes can rule out, by a linear programme; and the rule that attains
    it.

    Mazzetto et al., *Tight Lower Bounds on Worst-Case Guarantees for Zero-Shot Learning with Attributes* (2022). All
    that is known is how often each class has each attribute, :math:`A_{cm}`; the detectors of attributes make no
    mistake. How attributes depend on each other within a class is open, and the adversary chooses it:

    .. math:: \max_{p}\; 1 - \sum_{v \in \{0, 1\}^a} \max_c \pi_c\, p_c(v)
        \quad\text{subject to}\quad \sum_{v : v_m = 1} p_c(v) = A_{cm}

    Small and exact: there are :math:`(C + 1) 2^a` variables, which HiGHS solves.

    Args:
        attributes: A, float `[C, a]` in [0, 1].
        prior: probability of each class, `[C]`; equal ones if None.
        largest: a at most; more are refused, since every attribute doubles the programme.

    Raises:
        ShapeError: attributes that are no such matrix, a prior that is no distribution. ConfigError: more attributes
            than `largest`.

    Example:
        >>> from repertoire.zeroshot import worst_case_error
        >>> round(worst_case_error([[1.0], [0.0]]).error, 6)  # one attribute tells two classes apart
        0.0
        >>> round(worst_case_error([[0.5], [0.5]]).error, 6)  # it says nothing
        0.5
    """
    A, share = _known(attributes, prior, largest)
    classes, count = A.shape
    vectors = 2**count
    marginals = _marginals(count)
    # Variables: the mass of each class on each vector, prior times probability, then the largest of each vector.
    fixed = hstack([block_diag([marginals] * classes), csr_matrix((classes * (count + 1), vectors))])
    wanted = np.concatenate([share[:, None], share[:, None] * A], 1).ravel()
    below = hstack([eye(classes * vectors), -kron(np.ones((classes, 1)), eye(vectors))])
    cost = np.concatenate([np.zeros(classes * vectors), np.ones(vectors)])
    found = linprog(cost, below.tocsr(), np.zeros(classes * vectors), fixed.tocsr(), wanted, method="highs")
    if found.status != 0:
        raise ArithmeticError(f"the linear programme was not solved: {found.message}")
    mass = found.x[: classes * vectors].reshape(classes, vectors)
    rule = -found.ineqlin.marginals.reshape(classes, vectors).T
    rule = np.maximum(rule, 0.0)
    total = rule.sum(1, keepdims=True)
    rule = np.where(total > 0, rule / np.where(total > 0, total, 1.0), 1 / classes)
    adversary = mass / np.where(share > 0, share, 1.0)[:, None]
    return WorstCase(float(1 - found.fun), rule, adversary)


@checked
def worst_error_of(rule: Any, attributes: Any, prior: Any = None, *, largest: Annotated[int, AtLeast(1)] = 12) -> float:
    r"""The largest error that a rule from attributes to classes may have, whatever else is true of the attributes.

    .. math:: 1 - \sum_c \pi_c \min_{p_c} \sum_v p_c(v)\, q(c \mid v)

    Args:
        rule: q, the probability of each class for each vector of attributes, float `[2^a, C]`; see `WorstCase`.
        attributes: float `[C, a]` in [0, 1].
        prior: probability of each class, `[C]`; equal ones if None.
        largest: a at most.

    Raises:
        ShapeError: shapes that do not fit, a rule that gives no distributions. ConfigError: more attributes than
            `largest`.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import worst_error_of
        >>> worst_error_of(np.array([[0.0, 1.0], [1.0, 0.0]]), [[0.9], [0.0]])  # one row in ten lacks its attribute
        0.05
    """
    A, share = _known(attributes, prior, largest)
    q = np.asarray(rule, dtype=np.float64)
    if q.shape != (2 ** A.shape[1], len(A)) or (q < -1e-9).any() or not np.allclose(q.sum(1), 1):
        raise ShapeError(f"rule must be distributions [{2 ** A.shape[1]}, {len(A)}], found {[*q.shape]}")
    marginals = _marginals(A.shape[1])
    right = 0.0
    for c, had in enumerate(A):
        found = linprog(q[:, c], A_eq=marginals, b_eq=np.append(1.0, had), method="highs")
        right += share[c] * found.fun
    return float(round(1 - right, 12))


def _marginals(count: int) -> csr_matrix:
    """Rows that sum a distribution over vectors, and over those with each attribute: `[a + 1, 2^a]`."""
    had = (np.arange(2**count) >> np.arange(count)[:, None]) & 1
    return vstack([csr_matrix(np.ones((1, 2**count))), csr_matrix(had.astype(np.float64))]).tocsr()


def _known(attributes: Any, prior: Any, largest: int) -> tuple[np.ndarray, np.ndarray]:
    A = np.asarray(attributes, dtype=np.float64)
    if A.ndim != 2 or not A.size or not np.isfinite(A).all() or A.min() < 0 or A.max() > 1:
        raise ShapeError(f"attributes must be [C, a], each how often a class has it, in [0, 1]; found {[*A.shape]}")
    if A.shape[1] > largest:
        raise ConfigError(
            f"{A.shape[1]} attributes make {2 ** A.shape[1]} vectors, and at most {largest} attributes are solved; "
            "leave some out, or raise largest"
        )
    share = np.full(len(A), 1 / len(A)) if prior is None else np.asarray(prior, dtype=np.float64)
    if share.shape != (len(A),) or (share < 0).any() or not np.isclose(share.sum(), 1):
        raise ShapeError(f"prior must be a distribution [{len(A)}], found {[*share.shape]}")
    return A, share
