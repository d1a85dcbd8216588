"""Relative representations: a sample by its similarities to anchors, which two networks can share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repertoire.diagnostics._stream import Features, as_labels, whole
from repertoire.errors import ShapeError
from repertoire.ops import unit_rows

__all__ = ["ModelComparison", "Stitching", "compare_representations", "relative_representation", "stitching"]


def relative_representation(features: Features, anchors: Features) -> Tensor:
    r"""Samples by their cosines to anchors: unchanged by rotations and rescalings of the space.

    Moschella et al., *Relative Representations Enable Zero-Shot Latent Space Communication* (2022):

    .. math:: r(x) = \big( \cos(e(x), e(a_1)), \ldots, \cos(e(x), e(a_k)) \big)

    Args:
        features: float `[N, d]`, in memory or not: see :func:`repertoire.diagnostics.eigenvalue_spectrum`.
        anchors: float `[k, d]`, the features of the anchors by the same network; any samples, in the same order for
            every network.

    Returns:
        float `[N, k]`, in [-1, 1]; differentiable.

    Raises:
        ShapeError: no floating point matrices of one width.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import relative_representation
        >>> relative_representation(torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        tensor([[1., 0.]])
    """
    z, a = unit_rows(whole(features)), unit_rows(whole(anchors))
    if z.shape[1] != a.shape[1]:
        raise ShapeError(f"features and anchors must be of one width, found {z.shape[1]} and {a.shape[1]} columns")
    return z @ a.T


@dataclass(frozen=True)
class ModelComparison:
    """Agreement of two networks on the same samples, relative to the same anchors.

    Attributes:
        cosine: mean cosine between the relative representations of a sample by both; 1 for equal spaces.
        jaccard: mean overlap (intersection over union) of a sample's ten nearest others in both.
        same_nearest: share of the samples with the same nearest other in both.
    """

    cosine: float
    jaccard: float
    same_nearest: float


@torch.no_grad()
def compare_representations(
    x: Features, y: Features, *, anchors: int = 300, neighbours: int = 10, most: int = 2000, seed: int = 0
) -> ModelComparison:
    """Compares what two networks make of the same samples, whatever the rotation and scale of their spaces.

    Samples by both networks are made relative to the same anchors, as in Moschella et al. (2022), see
    :func:`repertoire.diagnostics.relative_representation`, and compared with each other. Of more than `most` samples,
    as many are drawn; of these, neighbours are searched in time O(most² · anchors).

    Args:
        x, y: float `[N, d]` and `[N, e]`, row i is the same sample.
        anchors: samples drawn to be anchors; at most N.
        neighbours: of a sample that are compared.
        most: samples that are compared.
        seed: of both draws.

    Raises:
        ShapeError: no floating point matrices with the same samples, or fewer than three samples.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import compare_representations
        >>> x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
        >>> found = compare_representations(x, 2 * x @ torch.linalg.qr(torch.randn(4, 4)).Q)
        >>> round(found.cosine, 4), found.same_nearest
        (1.0, 1.0)
    """
    x, y = whole(x), whole(y)
    if len(x) != len(y):
        raise ShapeError(f"x and y must have the same samples, found {len(x)} rows and {len(y)}")
    if len(x) < 3:
        raise ShapeError(f"x and y must have three samples or more, found {len(x)}")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    chosen, shown = order[:anchors], order.flip(0)[:most]
    a, b = (relative_representation(z[shown], z[chosen]) for z in (x, y))
    cosine = float((unit_rows(a) * unit_rows(b)).sum(1).mean())
    k = min(neighbours, len(shown) - 1)
    near = [_neighbours(unit_rows(z), k) for z in (a, b)]
    shared = (near[0][:, :, None] == near[1][:, None, :]).sum((1, 2)).double()
    return ModelComparison(
        cosine, float((shared / (2 * k - shared)).mean()), float((near[0][:, 0] == near[1][:, 0]).double().mean())
    )


def _neighbours(z: Tensor, k: int) -> Tensor:
    from repertoire.ops import pair_topk

    return pair_topk(z, k=k, exclude_self=True).indices


@dataclass(frozen=True)
class Stitching:
    """Accuracy of a classifier of one network's features on those of another, which it never saw.

    Attributes:
        own: on the features of the network that it was fitted to.
        relative: on the other's, both made relative to the same anchors.
        absolute: on the other's as they are; None where the two are of different widths.
        chance: share of the commonest class.
    """

    own: float
    relative: float
    absolute: float | None
    chance: float


def stitching(
    fitted: tuple[Features, Features],
    labels: Tensor | np.ndarray,
    tested: tuple[Features, Features],
    test_labels: Tensor | np.ndarray,
    *,
    anchors: int = 300,
    seed: int = 0,
) -> Stitching:
    """Tests the classifier of one network on the features of another: zero-shot stitching.

    As Moschella et al., *Relative Representations Enable Zero-Shot Latent Space Communication* (2022): a linear
    classifier is fitted to the relative representations of the first network, and tested on those of the second.

    Args:
        fitted: features of the training samples by the first and by the second network, `[N, d]` and `[N, e]`. The
            anchors are drawn from these.
        labels: integers `[N]`.
        tested: features of the test samples by both, `[M, d]` and `[M, e]`.
        test_labels: integers `[M]`.
        anchors: at most N.
        seed: of the anchors.

    Raises:
        ShapeError: different numbers of samples, no test sample, or fewer than two classes.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import stitching
        >>> x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
        >>> turned = x @ torch.tensor([[0.0, 0, 0, -1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
        >>> labels = (x[:, 0] > 0).long()
        >>> found = stitching((x, turned), labels, (x, turned), labels)
        >>> found.relative == found.own
        True
    """
    from sklearn.linear_model import LogisticRegression

    fitted, tested = ((whole(own), whole(other)) for own, other in (fitted, tested))
    labels, test_labels = as_labels(labels), as_labels(test_labels)
    if not len(fitted[0]) == len(fitted[1]) == len(labels) or not len(tested[0]) == len(tested[1]) == len(test_labels):
        raise ShapeError(
            "both networks must have seen the same samples, found "
            f"{len(fitted[0])}, {len(fitted[1])} and {len(labels)} labels to fit to, "
            f"{len(tested[0])}, {len(tested[1])} and {len(test_labels)} labels to test on"
        )
    if len(labels.unique()) < 2 or not len(test_labels):
        raise ShapeError("stitching needs two classes or more, and a sample to test on")
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:anchors]
    seen = [relative_representation(z, z[chosen]).numpy() for z in fitted]
    unseen = [relative_representation(z, a[chosen]).numpy() for z, a in zip(tested, fitted, strict=True)]
    targets, truth = labels.numpy(), test_labels.numpy()
    classifier = LogisticRegression(C=10.0, max_iter=300).fit(seen[0], targets)
    absolute = None
    if fitted[0].shape[1] == fitted[1].shape[1]:
        plain = LogisticRegression(C=10.0, max_iter=300).fit(unit_rows(fitted[0]).numpy(), targets)
        absolute = float(plain.score(unit_rows(tested[1]).numpy(), truth))
    return Stitching(
        float(classifier.score(unseen[0], truth)),
        float(classifier.score(unseen[1], truth)),
        absolute,
        float(np.unique(truth, return_counts=True)[1].max() / len(truth)),
    )
