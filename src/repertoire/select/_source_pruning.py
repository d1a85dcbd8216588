"""Parts of a source data set that are of use for a target task."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError

__all__ = ["SourceRanking", "feature_mapping", "label_mapping"]


class SourceRanking(NamedTuple):
    """Parts of a source (classes or clusters), the most useful first."""

    order: Tensor
    """int64 `[K]`."""
    counts: Tensor
    """int64 `[K]`, by part, not by rank: target samples that were given to it."""

    def keep(self, share: float) -> Tensor:
        """The best parts, a share of all of them, at least one; ascending.

        Raises:
            ConfigError: a share outside (0, 1].
        """
        if not 0 < share <= 1:
            raise ConfigError(f"share must lie in (0, 1], found {share}")
        return self.order[: max(1, round(share * len(self.order)))].sort().values


def _ranking(chosen: Tensor, parts: int) -> SourceRanking:
    counts = torch.bincount(chosen, minlength=parts)
    return SourceRanking(counts.argsort(descending=True, stable=True), counts)


def label_mapping(logits: Tensor) -> SourceRanking:
    """Ranks the classes of a source by how often a source model sees them in target images.

    Zhang et al., *Selectivity Drives Productivity: Efficient Dataset Pruning for Enhanced Transfer Learning* (2023): a
    small model, trained on the source, looks at the target's images; source classes that it hardly ever names can be
    left out of pretraining.

    Args:
        logits: float `[N, K]`, of target images, by the source model.

    Raises:
        ShapeError: logits that are no floating point matrix.

    Example:
        >>> import torch
        >>> from repertoire.select import label_mapping
        >>> label_mapping(torch.eye(4)[[2, 2, 1]]).keep(0.5)
        tensor([1, 2])
    """
    if logits.ndim != 2 or not logits.is_floating_point() or not logits.shape[1]:
        raise ShapeError(f"logits must be a floating point [N, K], found {logits.dtype} {list(logits.shape)}")
    return _ranking(logits.argmax(1), logits.shape[1])


def feature_mapping(target: Tensor, centres: Tensor) -> SourceRanking:
    """Ranks clusters of a source by how many target images lie in them: the form without source labels.

    Zhang et al. (2023), see :func:`repertoire.select.label_mapping`; the features come from a model that was
    pretrained without labels.

    Args:
        target: float `[N, d]`, features of target images.
        centres: float `[K, d]`, of the source's clusters, as `repertoire.ops.kmeans` gives.

    Raises:
        ShapeError: no floating point matrices of one width.

    Example:
        >>> import torch
        >>> from repertoire.select import feature_mapping
        >>> feature_mapping(torch.tensor([[0.9], [1.2]]), torch.tensor([[0.0], [1.0], [5.0]])).order[0]
        tensor(1)
    """
    if target.ndim != 2 or centres.ndim != 2 or target.shape[1] != centres.shape[1]:
        raise ShapeError(
            f"target and centres must be matrices of one width, found {list(target.shape)} and {list(centres.shape)}"
        )
    nearest = [torch.cdist(part, centres).argmin(1) for part in target.split(4096)]
    return _ranking(torch.cat(nearest), len(centres))
