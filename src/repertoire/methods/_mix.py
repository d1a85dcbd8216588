"""Mixing the samples of a batch: new samples between two old ones, with soft targets."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ShapeError
from repertoire.ranges import AtLeast, Positive, checked

__all__ = ["Mix", "cutmix", "mixup"]

Mix = Literal["none", "mixup", "cutmix"]


@checked
def mixup(batch: Batch, classes: Annotated[int, AtLeast(1)], alpha: Annotated[float, Positive] = 1.0) -> Batch:
    r"""Adds every sample of a batch to another one, in a random proportion.

    Zhang, Cisse, Dauphin and Lopez-Paz, *mixup: Beyond Empirical Risk Minimization* (2018):

    .. math:: \tilde x_i = \lambda x_i + (1 - \lambda) x_{\pi(i)}, \qquad
              \tilde y_i = \lambda y_i + (1 - \lambda) y_{\pi(i)}, \qquad \lambda \sim \mathrm{Beta}(\alpha, \alpha)

    with a random permutation. Proportion and permutation are drawn once a batch, as in the released code, from torch's
    random state; all views are mixed alike. Fields stay those of the samples `x_i`.

    Args:
        batch: images `[N, C, H, W]` or vectors `[N, d]`; targets int64 `[N]`, or float `[N, K]` distributions.
        classes: K.
        alpha: of the Beta distribution, positive; the paper uses 1 on CIFAR-10 and 0.2 on ImageNet.

    Returns:
        The batch with mixed views and float targets `[N, K]`.

    Raises:
        ConfigError: alpha is not positive. ShapeError: targets that are no classes.

    Example:
        >>> import torch
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import mixup
        >>> batch = Batch((torch.eye(2),), torch.tensor([0, 1]), torch.arange(2))
        >>> mixed = mixup(batch, classes=2)
        >>> torch.equal(mixed.images, mixed.targets)  # what is done to samples is done to targets
        True
    """
    share = _share(alpha)
    order = torch.randperm(len(batch), device=batch.targets.device)
    views = tuple(torch.lerp(view[order], view, share) for view in batch.views)
    return replace(batch, views=views, targets=_soft(batch, classes, order, share))


@checked
def cutmix(batch: Batch, classes: Annotated[int, AtLeast(1)], alpha: Annotated[float, Positive] = 1.0) -> Batch:
    r"""Replaces a rectangle of every image of a batch by what another one has in that place.

    Yun, Han, Oh, Chun, Choe and Yoo, *CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features* (2019). With :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)`, the rectangle has
    :math:`\sqrt{1 - \lambda}` of the height and of the width and a uniformly random centre, is cut off at the border,
    and the target is mixed by the share of the pixels that it covers:

    .. math:: \tilde x_i = M \odot x_i + (1 - M) \odot x_{\pi(i)}, \qquad
              \tilde y_i = \bar M\,y_i + (1 - \bar M)\,y_{\pi(i)}

    Rectangle and permutation are drawn once a batch, as in the released code, from torch's random state.

    Args:
        batch: images `[N, C, H, W]`; targets int64 `[N]`, or float `[N, K]` distributions.
        classes: K.
        alpha: of the Beta distribution, positive; 1 in the paper.

    Returns:
        The batch with mixed views and float targets `[N, K]`.

    Raises:
        ConfigError: alpha is not positive. ShapeError: what is mixed are no images, or targets are no classes.

    Example:
        >>> import torch
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import cutmix
        >>> images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
        >>> mixed = cutmix(Batch((images,), torch.tensor([0, 1]), torch.arange(2)), classes=2)
        >>> torch.allclose(mixed.images.mean((1, 2, 3)), mixed.targets[:, 1])
        True
    """
    if batch.images.dim() != 4:
        raise ShapeError(f"cutmix needs images [N, C, H, W], found {list(batch.images.shape)}: use mixup")
    side = math.sqrt(1 - _share(alpha))
    height, width = batch.images.shape[2:]
    centre = torch.rand(2).tolist()
    top, bottom = _span(height, side, centre[0])
    left, right = _span(width, side, centre[1])
    order = torch.randperm(len(batch), device=batch.targets.device)
    views = []
    for view in batch.views:
        mixed = view.clone()
        mixed[:, :, top:bottom, left:right] = view[order, :, top:bottom, left:right]
        views.append(mixed)
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return replace(batch, views=tuple(views), targets=_soft(batch, classes, order, share))


def _share(alpha: float) -> float:
    # On the CPU, whatever the device is: nothing waits for a number drawn there.
    return float(torch.distributions.Beta(torch.tensor(float(alpha)), torch.tensor(float(alpha))).sample())


def _span(length: int, side: float, centre: float) -> tuple[int, int]:
    """First pixel of a side of the rectangle, and the first after it."""
    size, middle = int(length * side), int(centre * length)
    start = middle - size // 2
    return max(0, start), max(0, min(length, start + size))


def _soft(batch: Batch, classes: int, order: Tensor, share: float) -> Tensor:
    targets = batch.targets
    if targets.dim() == 1 and not targets.is_floating_point():
        targets = F.one_hot(targets.long(), classes).to(batch.images.dtype)
    elif targets.dim() != 2 or not targets.is_floating_point():
        raise ShapeError(
            f"samples are mixed with targets of one class each, or float [N, {classes}] distributions; found "
            f"{targets.dtype} {list(targets.shape)}"
        )
    return torch.lerp(targets[order], targets, share)
