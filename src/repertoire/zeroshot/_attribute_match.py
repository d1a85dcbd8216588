"""One classifier for each attribute, and the class whose attributes fit."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_expit

from repertoire.errors import ConfigError
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register
from repertoire.zeroshot._base import ZeroShotClassifier

__all__ = ["AttributeMatch"]


@register("zero-shot-classifiers", "attribute-match", paper="zsl-survey")
class AttributeMatch(ZeroShotClassifier):
    r"""Predicts each attribute by itself, and takes the class whose attributes are the most probable.

    Direct attribute prediction of Lampert, Nickisch and Harmeling, *Attribute-Based Classification for Zero-Shot Visual
    Object Categorization* (2014), with logistic regressions for the attributes. With binary attributes
    :math:`a_m^c` of class c, and :math:`\bar a_m` the share of seen classes that have the attribute,

    .. math:: f_c(x) = \sum_m \log \frac{p(a_m = a_m^c \mid x)}{p(a_m = a_m^c)}, \qquad p(a_m = 1) = \bar a_m

    Attributes that are no yes or no count as had above their mean over the seen classes, as in the paper. One that all
    seen classes have, or none, cannot be learned, and is left out.

    Args:
        ridge: penalty on the weights of the regressions, positive; 0.001 by default. Features have a mean squared
            length of 1.
        max_iter: iterations of L-BFGS at most; 200 by default.

    Attributes:
        coef_: weights of the attributes that can be learned, `[k, d]`.
        intercept_: `[k]`.
        used_: which attributes these are, `[k]`.
        threshold_: above which each of all attributes counts as had, `[a]`.

    Raises:
        ConfigError: an option out of range; when fitted, if all seen classes have the same attributes.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import AttributeMatch
        >>> x, y = np.array([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]]), np.array([0, 1, 2])
        >>> described = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
        >>> AttributeMatch().fit(x, y, described).predict([[2.0, 2.0]])  # a row of the class never seen
        array([3])
    """

    coef_: np.ndarray
    intercept_: np.ndarray
    used_: np.ndarray
    threshold_: np.ndarray

    @checked
    def __init__(self, ridge: Annotated[float, Positive] = 1e-3, max_iter: Annotated[int, AtLeast(1)] = 200) -> None:
        self.ridge = ridge
        self.max_iter = max_iter

    def _fit(self, Z: np.ndarray, y: np.ndarray) -> None:
        self.threshold_ = self._seen_descriptions.mean(0)
        had = self._seen_descriptions > self.threshold_
        self.used_ = np.flatnonzero(had.any(0) & ~had.all(0))
        if not len(self.used_):
            raise ConfigError("all seen classes have the same attributes, so there is none to learn")
        had = had[:, self.used_]
        self._log_prior = np.log(np.stack([1 - had.mean(0), had.mean(0)]))
        self.coef_, self.intercept_ = logistic(Z, had[y].astype(np.float64), self.ridge, self.max_iter)

    def _scores(self, Z: np.ndarray, descriptions: np.ndarray, known: np.ndarray) -> np.ndarray:
        had = (descriptions > self.threshold_)[:, self.used_].astype(np.float64)
        logits = Z @ self.coef_.T + self.intercept_
        yes, no = log_expit(logits) - self._log_prior[1], log_expit(-logits) - self._log_prior[0]
        scores: np.ndarray = (yes - no) @ had.T + no.sum(1, keepdims=True)
        return scores


def logistic(Z: np.ndarray, targets: np.ndarray, ridge: float, max_iter: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[k, d]` and intercepts `[k]` of k logistic regressions on the same rows, solved together.

    Args:
        Z: rows `[N, d]`.
        targets: 0 or 1, `[N, k]`.
        ridge: of half the squared weights, beside the mean loss over the rows; intercepts are free.
        max_iter: iterations of L-BFGS at most.
    """
    count, width, many = len(Z), Z.shape[1], targets.shape[1]

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(many, width + 1)
        logits = Z @ weights[:, :width].T + weights[:, width]
        losses = -targets * log_expit(logits) - (1 - targets) * log_expit(-logits)
        slope = (np.exp(log_expit(logits)) - targets) / count
        gradient = np.empty_like(weights)
        gradient[:, :width] = slope.T @ Z + ridge * weights[:, :width]
        gradient[:, width] = slope.sum(0)
        return losses.sum() / count + 0.5 * ridge * np.square(weights[:, :width]).sum(), gradient.ravel()

    found = minimize(value, np.zeros(many * (width + 1)), jac=True, method="L-BFGS-B", options={"maxiter": max_iter})
    weights = found.x.reshape(many, width + 1)
    return weights[:, :width], weights[:, width]
