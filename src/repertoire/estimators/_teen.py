"""Prototypes of new classes that are moved towards similar old ones, without any training."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax
from sklearn.preprocessing import normalize

from repertoire.estimators._incremental import Incremental, grown
from repertoire.registry import register

__all__ = ["PrototypeCalibration"]


@register("feature-estimators", "teen", paper="teen")
class PrototypeCalibration(Incremental):
    r"""Nearest class mean by cosine, where classes of a few samples borrow from similar ones of many.

    Wang et al., *Few-Shot Class-Incremental Learning via Training-Free Prototype Calibration* (2023), called TEEN. The
    classes of the first stage are the base classes B, those of all later ones are new. With :math:`c_k` the unit vector
    of the mean of class k, the prototype of a base class is :math:`c_b` itself, and that of a new class

    .. math::
        p_n = (1 - s)\, c_n + s\, \frac{v_n}{\lVert v_n \rVert}, \qquad
        v_n = \sum_{b \in B} \operatorname{softmax}_b(\tau\, c_n \cdot c_b)\, c_b

    A row belongs to the prototype of the largest cosine. Nothing is trained, and base prototypes stay what they are.
    New classes gain at the cost of base classes, which lose rows to them: where only base classes count, take s = 0,
    which is the nearest class mean.

    Args:
        shift: s, from 0 (the class mean) to 1; 0.5 as in the authors' code.
        temperature: tau, 0 or more; at 0 every base class counts alike. 16 as in the authors' code. Probabilities are a
            softmax of 16 times the cosines, whatever tau.

    Attributes:
        classes_: the labels, sorted, `[K]`.
        means_: of all samples of each class, `[K, d]`.
        counts_: how many samples each is the mean of, `[K]`.
        base_: which classes were in the first stage, bool `[K]`.
        stages_: how many stages there have been.
        n_features_in_: d.

    Raises:
        ValueError: when fitted: values that are not finite, labels that are no classes. ConfigError: an option out of
            range.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import PrototypeCalibration
        >>> model = PrototypeCalibration().fit(np.eye(3), ["cat", "dog", "oak"])
        >>> model.partial_fit([[0.9, 0.5, 0.0]], ["fox"]).predict([[0.9, 0.4, 0.1], [0.0, 0.1, 1.0]]).tolist()
        ['fox', 'oak']
    """

    means_: np.ndarray
    counts_: np.ndarray
    base_: np.ndarray

    def __init__(self, shift: float = 0.5, temperature: float = 16.0) -> None:
        self.shift = shift
        self.temperature = temperature

    def _check_options(self) -> None:
        self._require("shift", 0 <= self.shift <= 1, "from 0 to 1")
        self._require("temperature", 0 <= self.temperature < np.inf, "a number, 0 or more")

    def _begin(self, width: int) -> None:
        self.means_, self.counts_ = np.zeros((0, width)), np.zeros(0, dtype=np.int64)
        self.base_ = np.zeros(0, dtype=bool)

    def _make_room(self, place: np.ndarray, count: int) -> None:
        self.means_, self.counts_ = grown(self.means_, place, count), grown(self.counts_, place, count)
        self.base_ = grown(self.base_, place, count)

    def _learn(self, X: np.ndarray, index: np.ndarray) -> None:
        sums = np.zeros_like(self.means_)
        np.add.at(sums, index, X)
        more = np.bincount(index, minlength=len(self.means_))
        # Classes that are not in this stage keep their means bit for bit.
        here = more > 0
        total = self.counts_ + more
        self.means_[here] = (self.means_ * self.counts_[:, None] + sums)[here] / total[here, None]
        self.counts_ = total
        if self.stages_ == 0:
            self.base_[:] = True

    def prototypes(self) -> np.ndarray:
        """What rows are compared with, `[K, d]`: unit vectors of base classes, calibrated ones of new classes."""
        found = normalize(self.means_)
        new = ~self.base_
        if new.any():
            own, base = found[new], found[self.base_]
            borrowed = normalize(softmax(self.temperature * own @ base.T, axis=1) @ base)
            found[new] = (1 - self.shift) * own + self.shift * borrowed
        return found

    def _logits(self, X: np.ndarray) -> np.ndarray:
        return 16.0 * normalize(X) @ normalize(self.prototypes()).T
