"""Alignment of positive pairs on the unit sphere."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from repertoire.diagnostics._stream import Features, as_labels, whole
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import alignment_loss, check_embeddings
from repertoire.ops import class_index, class_sums, unit_rows
from repertoire.registry import register

__all__ = ["alignment"]

#: Rows that are looked at together: bounds the temporaries.
_ROWS = 512


@register("diagnostics", "alignment", paper="align-uniform")
@torch.no_grad()
def alignment(
    features: Features,
    labels: Tensor | np.ndarray | None = None,
    *,
    positives: Features | None = None,
    alpha: float = 2.0,
) -> float:
    r"""Mean distance between positive pairs on the unit sphere; lower is closer.

    Wang and Isola, *Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere* (2020), with z scaled to unit length here:

    .. math:: \mathbb{E}_{(i, j)\,\mathrm{positive}}\ \lVert z_i - z_j \rVert_2^\alpha

    The positive pairs are the rows of `features` and `positives` if these are given (two augmentations of each sample,
    or two modalities), else all pairs of distinct rows with the same label. For alpha = 2 those pairs need only the
    mean of each class, in O(Nd) time; for other powers they are streamed class by class.

    Args:
        features: float `[N, d]`, of any length, in memory or not: see
            :func:`repertoire.diagnostics.eigenvalue_spectrum`. A zero vector stays at the centre of the sphere.
        labels: integers `[N]`, of any value; not looked at if `positives` are given.
        positives: float `[N, d]`; row i is a positive of row i of the features.
        alpha: power of the distance, at least 1; 2 in the paper.

    Returns:
        A number in [0, 2 ** alpha]; nan if there is no positive pair.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or neither labels nor positives.
        ConfigError: alpha below 1. DataError: a value that is not finite.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import alignment
        >>> round(alignment(torch.eye(3), torch.tensor([0, 0, 1])), 4)
        2.0
    """
    if not alpha >= 1:
        raise ConfigError(f"alpha must be at least 1, found {alpha}")
    if positives is not None:
        rows = whole(features)
        value = float(alignment_loss(rows, whole(positives), alpha=alpha))
        return value if len(rows) else float("nan")
    if labels is None:
        raise ShapeError("alignment needs labels, or positives: another view of every sample")
    rows, given = whole(features), as_labels(labels)
    check_embeddings(rows, given)
    index, counts = class_index(given)
    pairs = int((counts * (counts - 1)).sum())
    if not pairs:
        return float("nan")
    z = unit_rows(rows)
    total = _squared(z, index, counts) if alpha == 2 else _powers(z, index, counts, alpha)
    return total / pairs


def _squared(z: Tensor, index: Tensor, counts: Tensor) -> float:
    """Sum of squared distances over ordered pairs: 2 n_c times the squared deviations from each class mean."""
    means = class_sums(z, index, len(counts)) / counts.clamp_min(1)[:, None]
    total = 0.0
    for rows in torch.arange(len(z), device=z.device).split(_ROWS):
        classes = index[rows]
        deviations = (z[rows] - means[classes]).square().sum(1)
        total += float((2 * counts[classes] * deviations).sum())
    return total


def _powers(z: Tensor, index: Tensor, counts: Tensor, alpha: float) -> float:
    """Sum of distances to the power alpha over ordered pairs, in tiles of rows sorted by class."""
    order = index.argsort()
    z, index = z[order], index[order]
    ends = counts.cumsum(0)
    starts = ends - counts
    total = 0.0
    for first in range(0, len(z), _ROWS):
        last = min(first + _ROWS, len(z))
        # The classes of these rows stand side by side; no other column can hold a pair.
        for left in range(int(starts[index[first]]), int(ends[index[last - 1]]), _ROWS):
            right = min(left + _ROWS, len(z))
            # The product form of cdist loses half of the digits of a small distance.
            distances = torch.cdist(z[first:last], z[left:right], compute_mode="donot_use_mm_for_euclid_dist")
            same = index[first:last, None] == index[left:right]
            total += float((distances**alpha * same).sum())
    return total
