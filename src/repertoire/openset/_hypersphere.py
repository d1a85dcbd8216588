"""Deep SVDD and Deep SAD: a small network that draws normal samples together, far from known anomalies."""

from __future__ import annotations

from typing import Annotated, Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.openset._base import NoveltyScore, Values, rows
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["DeepSAD", "DeepSVDD"]

_NEAREST = 0.1
"""Least distance from zero of each number of the centre: at zero, weights of zero would be perfect."""
_SLOPE = 0.1


class _Hypersphere(NoveltyScore):
    """Two layers without biases, and the squared distance of what they give to a centre that stays."""

    reads = frozenset({"features"})

    width: int
    size: int
    epochs: int
    rate: float
    decay: float
    seed: int

    def _train(self, x: np.ndarray, anomalies: np.ndarray, weight: float) -> None:
        self.mean_, spread = x.mean(0), x.std(0)
        self.spread_ = np.where(spread > 0, spread, 1.0)
        normal, other = (torch.from_numpy((part - self.mean_) / self.spread_).float() for part in (x, anomalies))
        generator = torch.Generator().manual_seed(self.seed)
        shapes = ((self.width, x.shape[1]), (self.size, self.width))
        layers = [torch.empty(shape).uniform_(-1, 1, generator=generator) / shape[1] ** 0.5 for shape in shapes]
        centre = _through(normal, *layers).mean(0)
        centre = torch.where(centre < 0, centre.clamp(max=-_NEAREST), centre.clamp(min=_NEAREST))
        rows_, known = torch.cat([normal, other]), torch.arange(len(normal) + len(other)) >= len(normal)
        weights = [layer.requires_grad_() for layer in layers]
        optimiser = torch.optim.Adam(weights, lr=self.rate, weight_decay=self.decay)
        with torch.enable_grad():
            for _ in range(self.epochs):
                for batch in torch.randperm(len(rows_), generator=generator).split(128):
                    distance = (_through(rows_[batch], *weights) - centre).square().sum(1)
                    loss = torch.where(known[batch], weight / (distance + 1e-6), distance).mean()
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
        self.first_, self.second_ = (layer.detach().double().numpy() for layer in weights)
        self.centre_ = centre.double().numpy()

    def _score(self, x: np.ndarray, f: None) -> np.ndarray:
        standardised = torch.from_numpy((x - self.mean_) / self.spread_)
        found = _through(standardised, torch.from_numpy(self.first_), torch.from_numpy(self.second_)).numpy()
        return -((found - self.centre_) ** 2).sum(1)


def _through(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    # Not bounded, and nothing is added: a bounded unit or a bias could give the centre whatever comes in.
    return F.leaky_relu(x @ first.T, _SLOPE) @ second.T


@register("novelty-scores", "deep-svdd")
class DeepSVDD(_Hypersphere):
    r"""A small network that is trained to give the same for all normal samples; it needs neither classes nor logits.

    Ruff et al., *Deep One-Class Classification* (ICML 2018): with a centre c, the mean of what the network gives at
    first,

    .. math:: \min_W \frac{1}{N} \sum_i \lVert \phi_W(z_i) - c \rVert_2^2, \qquad s(x) = -\lVert \phi_W(z) - c
        \rVert_2^2

    The network has two layers, without biases and with leaky rectifiers, on standardised features, and no number of c
    is nearer to zero than 0.1, so that not everything can collapse into it. It is not pretrained as an autoencoder, as
    that of the paper is.

    Args:
        width: units of the hidden layer, 1 or more.
        size: numbers that the network gives, 1 or more.
        epochs: passes over the samples, 1 or more.
        rate: learning rate of Adam, above 0.
        decay: weight decay, 0 or more.
        seed: of the weights and the order.

    Example:
        >>> import numpy as np
        >>> from repertoire.openset import DeepSVDD
        >>> x = np.random.default_rng(0).normal(size=(64, 4))
        >>> score = DeepSVDD(epochs=5).fit(x)
        >>> bool(score(x).mean() > score(9 + x).mean())
        True
    """

    def __init__(
        self,
        width: Annotated[int, AtLeast(1)] = 64,
        size: Annotated[int, AtLeast(1)] = 32,
        epochs: Annotated[int, AtLeast(1)] = 50,
        rate: Annotated[float, Positive] = 1e-3,
        decay: Annotated[float, AtLeast(0)] = 1e-6,
        seed: int = 0,
    ) -> None:
        self.width, self.size, self.epochs, self.rate = width, size, epochs, rate
        self.decay, self.seed = decay, seed

    def _fit(self, x: np.ndarray, f: None, y: None) -> None:
        self._train(x, x[:0], 1.0)


class DeepSAD(_Hypersphere):
    r"""Deep SVDD that a few known anomalies are pushed away from the centre by.

    Ruff et al., *Deep Semi-Supervised Anomaly Detection* (ICLR 2020): to the loss of `DeepSVDD`, the known anomalies
    add :math:`\eta / \lVert \phi_W(z_j) - c \rVert_2^2`; the mean is over both kinds. The samples that are not known to
    be anomalies count as normal.

    Args:
        eta: weight of a known anomaly, above 0.
        width, size, epochs, rate, decay, seed: as in `DeepSVDD`.

    Example:
        >>> import numpy as np
        >>> from repertoire.openset import DeepSAD
        >>> x = np.random.default_rng(0).normal(size=(64, 4))
        >>> score = DeepSAD(epochs=5).fit(x, anomalies=x[:8] + 3)
        >>> bool(score(x).mean() > score(x + 3).mean())
        True
    """

    def __init__(
        self,
        eta: Annotated[float, Positive] = 1.0,
        width: Annotated[int, AtLeast(1)] = 64,
        size: Annotated[int, AtLeast(1)] = 32,
        epochs: Annotated[int, AtLeast(1)] = 50,
        rate: Annotated[float, Positive] = 1e-3,
        decay: Annotated[float, AtLeast(0)] = 1e-6,
        seed: int = 0,
    ) -> None:
        self.eta, self.width, self.size, self.epochs = eta, width, size, epochs
        self.rate, self.decay, self.seed = rate, decay, seed

    def fit(
        self,
        features: Values | None = None,
        logits: Values | None = None,
        labels: Any = None,
        *,
        anomalies: Values | None = None,
    ) -> Self:
        """Fits to samples, most of them normal, and to some that are known not to be.

        Args:
            features: float `[N, d]`.
            logits, labels: not looked at.
            anomalies: float `[M, d]`, one or more.

        Raises:
            ConfigError: no anomalies; without, there is `DeepSVDD`.
            ShapeError: shapes that do not fit, or values that are not finite.
        """
        if anomalies is None or not len(anomalies):
            raise ConfigError("DeepSAD needs anomalies [M, d], and these were not given; without any, use DeepSVDD")
        self._anomalies = rows("anomalies", anomalies)
        try:
            return super().fit(features, logits, labels)
        finally:
            del self._anomalies

    def _fit(self, x: np.ndarray, f: None, y: None) -> None:
        if self._anomalies.shape[1] != x.shape[1]:
            raise ShapeError(f"anomalies must be [M, {x.shape[1]}], found {list(self._anomalies.shape)}")
        self._train(x, self._anomalies, self.eta)
