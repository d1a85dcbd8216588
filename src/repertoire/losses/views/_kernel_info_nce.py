"""Kernel InfoNCE: NT-Xent with another kernel than the Gaussian."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views, full_precision
from repertoire.ops import pair_logsumexp, unit_rows
from repertoire.ranges import Between, Positive, checked
from repertoire.registry import register

__all__ = ["Kernel", "KernelInfoNCE", "Mixing", "kernel_info_nce_loss"]

Kernel = Literal["gaussian", "laplacian", "sum", "concatenation"]
Mixing = Literal["kernels", "losses"]


@checked
def kernel_info_nce_loss(
    *views: Tensor,
    kernel: Kernel = "sum",
    temperature: Annotated[float, Positive] = 0.5,
    laplacian_temperature: Annotated[float, Positive] = 0.5,
    share: Annotated[float, Between(0, 1, "()")] = 0.5,
    mixing: Mixing = "kernels",
) -> Tensor:
    r"""Kernel InfoNCE: each embedding should find the other view of its sample, by a kernel of one's choice.

    Tan et al., *Contrastive Learning Is Spectral Clustering On Similarity Graph* (2023). They show that NT-Xent is
    spectral clustering with a Gaussian kernel, and try others. With z scaled to unit length and v another view of the
    anchor's sample:

    .. math:: \ell_i = -\log \frac{k(z_i, v)}{\sum_{j \ne i} k(z_i, z_j)}, \qquad
        k(x, y) = \exp\left(-\lVert x - y \rVert^\gamma / \tau\right)

    "gaussian" has :math:`\gamma = 2`: it is NT-Xent at the temperature :math:`\tau / 2`, since a squared distance on
    the sphere is twice one less the cosine. "laplacian" has :math:`\gamma = 1`. "sum" adds the two kernels, weighted by
    1 - share and share. "concatenation" adds a Gaussian kernel of the first half of the features to a Laplacian one of
    the second half. With `mixing="losses"` the losses of the two kernels are added instead, as the released code does.

    The loss is the mean over the embeddings of all views, and over the other views where there are several. No matrix
    of pairs is made.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        kernel: "gaussian", "laplacian", "sum" (default) or "concatenation".
        temperature: tau of the Gaussian kernel, positive.
        laplacian_temperature: tau of the Laplacian kernel, positive.
        share: of the Laplacian kernel in a mixture, in (0, 1).
        mixing: what is mixed: "kernels" (default) or "losses".

    Returns:
        A scalar; float32 for half-precision embeddings; zero for an empty batch.

    Raises:
        ShapeError: fewer than two views, views of different shapes or dtypes, or an odd width with "concatenation".
        ConfigError, ValueError: an argument out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import kernel_info_nce_loss
        >>> x = torch.eye(2)
        >>> kernel_info_nce_loss(x, x, kernel="gaussian", temperature=2.0)  # NT-Xent at 1: log(1 + 2 / e)
        tensor(0.5514)
        >>> kernel_info_nce_loss(x, x, kernel="laplacian", laplacian_temperature=1.0)  # log(1 + 2 exp(-sqrt 2))
        tensor(0.3962)
    """
    check_views(views)
    count, samples, width = len(views), *views[0].shape
    if kernel == "concatenation" and width % 2:
        raise ShapeError(f"kernel 'concatenation' needs views of an even width, found {width}")
    with full_precision(*views) as z:
        x = unit_rows(torch.cat(z))
        if not samples:
            return x.sum()
        # With kernel: everything of log k(z_i, .), and the log k(z_i, v) of the positives.
        halves = x.split(width // 2, 1) if kernel == "concatenation" else (x, x)
        gaussian = _log_kernel(halves[0], count, 2, temperature) if kernel != "laplacian" else None
        laplacian = _log_kernel(halves[1], count, 1, laplacian_temperature) if kernel != "gaussian" else None
        if gaussian is None or laplacian is None:
            everything, positives = gaussian or laplacian  # type: ignore[misc]
            return (everything[:, None] - positives).mean()
        if mixing == "losses":
            losses = [(everything[:, None] - positives).mean() for everything, positives in (gaussian, laplacian)]
            return (1 - share) * losses[0] + share * losses[1]
        weights = math.log1p(-share), math.log(share)
        everything, positives = (
            torch.logaddexp(a + weights[0], b + weights[1]) for a, b in zip(gaussian, laplacian, strict=True)
        )
        return (everything[:, None] - positives).mean()


def _log_kernel(x: Tensor, count: int, power: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Logarithms of the kernel: of its sum over all others `[V * N]`, and at the other views `[V * N, V - 1]`."""
    everything = pair_logsumexp(
        x, similarity="sqeuclidean" if power == 2 else "euclidean", scale=-1.0 / temperature, exclude_self=True
    )
    z = x.view(count, -1, x.shape[1])
    positives = []
    for step in range(1, count):
        difference = (z - z.roll(-step, 0)).flatten(0, 1)
        # vector_norm has the gradient zero where the distance is zero.
        distance = difference.square().sum(1) if power == 2 else torch.linalg.vector_norm(difference, dim=1)
        positives.append(-distance / temperature)
    return everything, torch.stack(positives, 1)


@register("losses", "kernel-info-nce", paper="kernel-infonce")
class KernelInfoNCE(ViewsLoss, function=kernel_info_nce_loss):
    """Module form of `kernel_info_nce_loss`."""
