"""Eigen-CAM: what is strongest in a layer, whatever the class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.explain._layers import Layer
from repertoire.explain.cam._activation import ActivationMap, Combine, Recorded
from repertoire.registry import register

__all__ = ["EigenCAM", "EigenGradCAM", "first_direction"]


@register("explainers", "eigen-cam", paper="eigen-cam")
class EigenCAM(ActivationMap):
    r"""Eigen-CAM: how far each place goes along the strongest direction of a layer's features. The same for each class.

    Muhammad and Yeasin, *Eigen-CAM: Class Activation Map using Principal Components* (2020). With A the features of a
    layer as a matrix of places times maps, and :math:`A = U \Sigma V^\top`:

    .. math:: L = \mathrm{ReLU}(\pm A\, v_1)

    :math:`v_1` is only known up to its sign. Here it is turned so that places where the features are large get a
    positive value: :math:`\sum_u (A v_1)_u \lVert A_u \rVert \ge 0`. After a ReLU there is then no negative value.
    Other programs first take the mean of each map away, which `centre=True` does; the map then shows what stands out.

    No score takes part, so **the map does not depend on the class**: what it shows is no reason for a decision. Targets
    are checked, and otherwise ignored; without targets the pass through the network ends at the layer.

    Args:
        layer: the layer to look at, or several; as :class:`GradCAM` takes it. By default the last block of a Repertoire
            backbone, and of another network the module that is last to give a map of more than one pixel.
        centre: take the mean of each feature map away first; False by default, as in the paper.
        normalize: divide each map by its largest value. Without it, maps are in units of the features.

    Raises:
        ConfigError: as :class:`GradCAM`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import EigenCAM
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> EigenCAM()(net, torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 16, 16])
    """

    class_dependent = False
    _needs_slopes = False
    _needs_scores = False

    def __init__(
        self,
        layer: str | Any = None,
        centre: bool = False,
        combine: Combine = "mean",
        normalize: bool = True,
        output: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(layer, combine, normalize, output)
        self.centre = centre

    def _heats(self, model: nn.Module, layers: Sequence[Layer], inputs: Tensor, recorded: Recorded) -> list[Tensor]:
        count = 1 if recorded.chosen is None else len(recorded.chosen)
        with torch.autocast(inputs.device.type, enabled=False):
            return [self._principal(maps).expand(count, -1, -1, -1) for maps in recorded.maps]

    def _principal(self, maps: Tensor) -> Tensor:
        features = maps.flatten(2)
        if self.centre:
            features = features - features.mean(2, keepdim=True)
        return _along(features, features.norm(dim=1)).unflatten(1, maps.shape[2:])[None]


@register("explainers", "eigen-grad-cam")
class EigenGradCAM(ActivationMap):
    r"""Eigen-Grad-CAM: how far each place goes along the strongest direction of gradient times features.

    Eigen-CAM (Muhammad and Yeasin, *Eigen-CAM: Class Activation Map using Principal Components*, 2020) of what depends
    on the class, as Gildenblat's *pytorch-grad-cam* (2021) has it. With :math:`g^k \odot A^k` of a layer as a matrix
    of places times maps, and its first right singular vector :math:`v_1`:

    .. math:: L = \mathrm{ReLU}(\pm (g \odot A)\, v_1)

    turned so that it agrees with the sum over the maps, which is :class:`HiResCAM`: of that it keeps what most maps
    have in common, so that single maps do not show.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import EigenGradCAM
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> EigenGradCAM()(net, torch.rand(2, 3, 16, 16), torch.tensor([0, 4])).shape
        torch.Size([2, 16, 16])
    """

    def _heat(self, maps: Tensor, slopes: Tensor) -> Tensor:
        features = (slopes * maps).flatten(0, 1).flatten(2)
        return _along(features, features.sum(1)).unflatten(1, maps.shape[2:]).unflatten(0, slopes.shape[:2])


def _along(features: Tensor, towards: Tensor) -> Tensor:
    """The positive part of how far each place of `[n, k, p]` goes along the first direction, turned to agree with a map
    `[n, p]`."""
    # U S = A V, so the map is found on the shorter side of the matrix.
    if features.shape[1] < features.shape[2]:
        heat = (first_direction(features)[:, None] @ features).squeeze(1)
    else:
        places = first_direction(features.mT)
        heat = places * (features @ places[:, :, None]).squeeze(2).norm(dim=1, keepdim=True)
    turned = (heat * towards).sum(1, keepdim=True)
    return torch.where(turned < 0, -heat, heat).relu_()


#: How many directions are followed at once; the error falls with the ratio of the eigenvalue after them to the first.
BLOCK = 8
#: How often the block is multiplied four times before those that have not settled are computed exactly.
ROUNDS = 6
#: Largest error of a direction that is let pass, as a sine; another is computed exactly.
ERROR = 5e-5


def first_direction(matrices: Tensor) -> Tensor:
    r"""The first left singular vector of each of some matrices `[N, d, m]`, as `[N, d]`.

    By power iteration of :math:`A A^\top`, which is not computed, on a block of vectors. How far a vector may be off is
    bounded by its residual over the gap to the next value (Davis and Kahan); those for which the bound is no good
    after some rounds are decomposed exactly. Where the two largest values are equal, any direction between them is
    right. A matrix of zeros has any.
    """
    scale = matrices.abs().amax((1, 2), keepdim=True)
    matrices = matrices / scale.masked_fill_(scale == 0, 1.0)
    size, count = matrices.shape[1:]
    block = min(BLOCK, size)
    # The columns that are longest lie closest to the first directions.
    longest = matrices.square().sum(1).topk(min(block, count), dim=1).indices
    vectors = matrices.gather(2, longest[:, None].expand(-1, size, -1))

    def times(x: Tensor) -> Tensor:
        return matrices @ (matrices.mT @ x)

    vectors = times(vectors)
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(vectors)[0]
        image = times(basis)
        values, inner = torch.linalg.eigh(basis.mT @ image)
        best = (basis @ inner[:, :, -1:]).squeeze(2)
        residual = ((image @ inner[:, :, -1:]).squeeze(2) - values[:, -1:] * best).norm(dim=1)
        gap = values[:, -1] - (values[:, -2] if values.shape[1] > 1 else 0)
        unsure = ~(residual <= ERROR * gap)
        if not unsure.any():
            return best
        vectors = times(times(times(image)))
    hard = matrices[unsure]
    best[unsure] = torch.linalg.eigh(hard @ hard.mT)[1][:, :, -1]
    return best
