"""A linear layer that is learned stage by stage, and kept from being sure outside of what it has seen."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from sklearn.preprocessing import normalize
from torch import Tensor
from torch.nn import functional as F

from repertoire.estimators._incremental import Incremental, grown
from repertoire.ops import energy_hinge
from repertoire.registry import register

__all__ = ["VirtualOutliers"]

_ROWS = 1024
"""Rows that are compared with all others at once."""


def _neighbour_distance(x: Tensor, others: Tensor, rank: int) -> Tensor:
    """Distance of each row to the `rank`-th nearest of the others, `[N]`, in strips; to the last one where there are
    fewer."""
    rank = min(rank, len(others))
    parts = [torch.cdist(part, others).kthvalue(rank, dim=1).values for part in x.split(_ROWS)]
    return torch.cat(parts) if parts else x.new_zeros(0)


@register("feature-estimators", "virtual-outliers", paper="ovor")
class VirtualOutliers(Incremental):
    r"""Linear layer, a stage at a time, that virtual outliers keep from claiming what belongs to other stages.

    Huang, Chen and Hsu, *OVOR: OnePrompt with Virtual Outlier Regularization for Rehearsal-Free Class-Incremental
    Learning* (2024). The rows of a stage's classes are learned from its samples alone, with the other logits masked;
    at test all logits compete. Nothing then says how large the logits of one stage may be beside those of another, and
    rows of one are mistaken for classes of the other. After `epochs` of cross-entropy, `tuned` more add

    .. math:: \lambda \left[ \operatorname{mean}_i H(E_i - t_{in})_+ + \operatorname{mean}_j H(t_{out} - E_j)_+ \right],
        \qquad E = -\log \sum_{k \in \text{stage}} e^{f_k}

    over samples i and virtual outliers j (:func:`repertoire.ops.energy_hinge`). To make outliers, each class gives its
    `boundary` features with the largest distance to their k-th nearest neighbour in the class; noise is added `draws`
    times to each; and of these candidates the `kept` per class stay that are furthest from the k-th nearest of all
    features of the stage. The prompt of the paper is another matter: features are given.

    The released code ranks the features of all classes together, and takes the noise by itself for a candidate, without
    the features that it was to be added to: `around="origin"`. It does not standardise the features.

    Args:
        weight: lambda, 0 or more; 0.1 as in the authors' code. At 0 the layer is trained with masked logits only, for
            as many steps.
        energy_in, energy_out: t_in and t_out; -15 and -3 as in the authors' code.
        neighbours: k, 1 or more.
        boundary: features of each class that outliers are made around, 1 or more.
        draws: candidates around each, 1 or more.
        kept: outliers for each class, 1 or more.
        noise: standard deviation of the noise, in units of that of the features of the stage within their classes;
            positive.
        around: "boundary" (default), or "origin".
        epochs, tuned: passes over a stage, without and with outliers; 1 or more, and 0 or more.
        rate: learning rate of Adam, positive.
        batch_size: 1 or more.
        normalize: scale each feature vector to a mean square of 1 first; a zero vector stays zero.
        random_state: seed of the noise and the order.

    Attributes:
        classes_: the labels, sorted, `[K]`.
        coef_, intercept_: of the layer, float64 `[K, d]` and `[K]`.
        stages_: how many stages there have been.
        n_features_in_: d.

    Raises:
        ValueError: when fitted: values that are not finite, labels that are no classes. ConfigError: an option out of
            range.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import VirtualOutliers
        >>> x = np.random.default_rng(0).normal(size=(80, 6)) + 6 * np.eye(4, 6)[np.arange(80) % 4]
        >>> y, model = np.arange(80) % 4, VirtualOutliers(rate=0.05)
        >>> for stage in ((0, 1), (2, 3)):
        ...     _ = model.partial_fit(x[np.isin(y, stage)], y[np.isin(y, stage)])
        >>> bool((model.predict(x) == y).mean() > 0.9)
        True
    """

    coef_: np.ndarray
    intercept_: np.ndarray

    def __init__(
        self,
        weight: float = 0.1,
        energy_in: float = -15.0,
        energy_out: float = -3.0,
        neighbours: int = 10,
        boundary: int = 50,
        draws: int = 20,
        kept: int = 40,
        noise: float = 1.0,
        around: Literal["boundary", "origin"] = "boundary",
        epochs: int = 20,
        tuned: int = 10,
        rate: float = 0.003,
        batch_size: int = 64,
        normalize: bool = True,
        random_state: int = 0,
    ) -> None:
        self.weight = weight
        self.energy_in = energy_in
        self.energy_out = energy_out
        self.neighbours = neighbours
        self.boundary = boundary
        self.draws = draws
        self.kept = kept
        self.noise = noise
        self.around = around
        self.epochs = epochs
        self.tuned = tuned
        self.rate = rate
        self.batch_size = batch_size
        self.normalize = normalize
        self.random_state = random_state

    @classmethod
    def example_options(cls) -> dict[str, float]:
        """Few rows are learned from in few steps, which have to be large."""
        return {"rate": 0.1}

    def _check_options(self) -> None:
        for name in ("neighbours", "boundary", "draws", "kept", "epochs", "batch_size"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in ("weight", "tuned"):
            self._require(name, 0 <= getattr(self, name) < np.inf, "0 or more")
        for name in ("noise", "rate"):
            self._require(name, 0 < getattr(self, name) < np.inf, "a positive number")
        self._require("around", self.around in ("boundary", "origin"), "'boundary' or 'origin'")

    def _begin(self, width: int) -> None:
        self.coef_, self.intercept_ = np.zeros((0, width)), np.zeros(0)

    def _make_room(self, place: np.ndarray, count: int) -> None:
        self.coef_, self.intercept_ = grown(self.coef_, place, count), grown(self.intercept_, place, count)

    def _learn(self, X: np.ndarray, index: np.ndarray) -> None:
        here, positions = np.unique(index, return_inverse=True)
        x, y = torch.from_numpy(self._scaled(X)), torch.from_numpy(positions)
        seed = np.random.SeedSequence([self.random_state, self.stages_]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        # Masked logits are those of other classes, so their rows take no part at all.
        weight = torch.from_numpy(self.coef_[here]).requires_grad_()
        bias = torch.from_numpy(self.intercept_[here]).requires_grad_()
        optimizer = torch.optim.Adam([weight, bias], lr=self.rate)
        outliers = self.outliers(x, y, generator) if self.weight and self.tuned else x[:0]
        for epoch in range(self.epochs + self.tuned):
            added = self.weight if epoch >= self.epochs else 0.0
            order = torch.randperm(len(x), generator=generator).split(self.batch_size)
            strangers = torch.randperm(len(outliers), generator=generator).tensor_split(len(order))
            for rows, others in zip(order, strangers, strict=True):
                logits = F.linear(x[rows], weight, bias)
                loss = F.cross_entropy(logits, y[rows])
                if added:
                    outside = F.linear(outliers[others], weight, bias)
                    loss = loss + added * energy_hinge(logits, outside, self.energy_in, self.energy_out)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self.coef_[here], self.intercept_[here] = weight.detach().numpy(), bias.detach().numpy()

    def outliers(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Virtual outliers of a stage.

        Args:
            x: float `[N, d]`, its features, scaled.
            y: int64 `[N]`, their classes, counted from 0 without a gap.
            generator: on the CPU; of the noise.

        Returns:
            `[kept * classes, d]` at most, class by class the candidates that are furthest from all features.
        """
        counts = torch.bincount(y)
        means = x.new_zeros(len(counts), x.shape[1]).index_add_(0, y, x) / counts[:, None]
        within = (x - means[y]).square().mean().sqrt()
        # Of one sample a class, nothing is known of the spread within classes.
        spread = self.noise * (within if within > 0 else (x - x.mean(0)).square().mean().sqrt())
        found = []
        for c in range(len(counts)):
            own = x[y == c]
            # One more, because each is its own nearest neighbour.
            edge = _neighbour_distance(own, own, self.neighbours + 1).topk(min(self.boundary, len(own))).indices
            noise = torch.randn(len(edge), self.draws, x.shape[1], generator=generator, dtype=x.dtype) * spread
            candidates = noise if self.around == "origin" else own[edge][:, None] + noise
            candidates = candidates.flatten(0, 1)
            far = _neighbour_distance(candidates, x, self.neighbours)
            found.append(candidates[far.topk(min(self.kept, len(far))).indices])
        return torch.cat(found)

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        return normalize(X) * X.shape[1] ** 0.5 if self.normalize else X

    def _logits(self, X: np.ndarray) -> np.ndarray:
        return self._scaled(X) @ self.coef_.T + self.intercept_
