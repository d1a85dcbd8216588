"""Grad-CAM with other weights: for each map, or for each place."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.explain.cam._activation import ActivationMap
from repertoire.registry import register

__all__ = ["GradCAMPlusPlus", "HiResCAM", "LayerCAM", "XGradCAM", "weighted"]


@register("explainers", "grad-cam-plus-plus")
class GradCAMPlusPlus(ActivationMap):
    r"""Grad-CAM++: as Grad-CAM, but places that speak for the class have weights of their own.

    Chattopadhay et al., *Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional Networks*
    (2018). With :math:`A^k` the K maps of a layer, :math:`g^k` the gradient of the score with respect to them, and a
    class probability that is the exponential of the score:

    .. math::
        \alpha^k_{ij} = \frac{(g^k_{ij})^2}{2 (g^k_{ij})^2 + \sum_{ab} A^k_{ab}\, (g^k_{ij})^3}, \qquad
        w_k = \sum_{ij} \alpha^k_{ij}\, \mathrm{ReLU}(g^k_{ij}), \qquad
        L = \mathrm{ReLU}\Big( \sum_k w_k A^k \Big)

    The exponential itself is one factor of the whole map and is left out. :math:`\alpha` is divided by
    :math:`(g^k_{ij})^2`, so that small gradients need no constant in the denominator; a denominator of exactly zero,
    which maps after a ReLU do not have, counts as one, as in the authors' program.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import GradCAMPlusPlus
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> GradCAMPlusPlus()(net, torch.rand(2, 3, 16, 16), torch.tensor([0, 4])).shape
        torch.Size([2, 16, 16])
    """

    def _heat(self, maps: Tensor, slopes: Tensor) -> Tensor:
        denominator = 2 + maps.sum((2, 3), keepdim=True) * slopes
        weights = slopes.clamp_min(0) / denominator.masked_fill_(denominator == 0, 1.0)
        return weighted(maps, weights.sum((3, 4)))


@register("explainers", "xgrad-cam")
class XGradCAM(ActivationMap):
    r"""XGrad-CAM: as Grad-CAM, but the gradient counts where the map is large.

    Fu et al., *Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs* (2020). With
    :math:`A^k` the K maps of a layer and :math:`g^k` the gradient of the score with respect to them:

    .. math::
        w_k = \sum_{ij} \frac{A^k_{ij}}{\sum_{ab} A^k_{ab}}\, g^k_{ij}, \qquad
        L = \mathrm{ReLU}\Big( \sum_k w_k A^k \Big)

    These weights make the maps sum to the part of the score that is linear in them. A map whose sum is
    zero has weight zero. It is meant for maps after a ReLU: sums of maps of both signs may come near zero.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import XGradCAM
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> XGradCAM()(net, torch.rand(2, 3, 16, 16), torch.tensor([0, 4])).shape
        torch.Size([2, 16, 16])
    """

    def _heat(self, maps: Tensor, slopes: Tensor) -> Tensor:
        total = maps.sum((2, 3))
        share = torch.einsum("qnkhw,nkhw->qnk", slopes, maps) / total.masked_fill(total == 0, 1.0)
        return weighted(maps, share.masked_fill(total == 0, 0.0))


@register("explainers", "hires-cam")
class HiResCAM(ActivationMap):
    r"""HiResCAM: gradient times feature map at each place, with both signs, so that what is shown was used.

    Draelos and Carin, *Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks*
    (2020). With :math:`A^k` the K maps of a layer and :math:`g^k` the gradient of the score with respect to them:

    .. math:: L = \mathrm{ReLU}\Big( \sum_k g^k \odot A^k \Big)

    Where only linear layers follow, the sum before the ReLU is exactly what each place adds to the score, less the
    bias: Grad-CAM, which averages the gradient over places first, may show places that added nothing. It is
    :class:`GradCAM` where a global average and a linear layer follow.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import HiResCAM
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 5))
        >>> HiResCAM()(net, torch.rand(2, 3, 16, 16), torch.tensor([0, 4])).shape
        torch.Size([2, 16, 16])
    """

    def _heat(self, maps: Tensor, slopes: Tensor) -> Tensor:
        return torch.einsum("qnkhw,nkhw->qnhw", slopes, maps).relu_()


@register("explainers", "layer-cam")
class LayerCAM(ActivationMap):
    r"""Layer-CAM: each place of each map has its own gradient as its weight, so that early layers can be looked at too.

    Jiang et al., *LayerCAM: Exploring Hierarchical Class Activation Maps for Localization* (2021). With :math:`A^k`
    the K maps of a layer and :math:`g^k` the gradient of the score with respect to them:

    .. math:: L = \mathrm{ReLU}\Big( \sum_k \mathrm{ReLU}(g^k) \odot A^k \Big)

    Grad-CAM gives a map one weight wherever it is, which fits the last layers, whose maps stand for parts of objects.
    The maps of an early layer stand for edges and colours that are everywhere; by place, their fine grid is of use.
    The paper merges layers by the largest value (`combine="max"`).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import LayerCAM
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> LayerCAM()(net, torch.rand(2, 3, 16, 16), torch.tensor([0, 4])).shape
        torch.Size([2, 16, 16])
    """

    def _heat(self, maps: Tensor, slopes: Tensor) -> Tensor:
        return torch.einsum("qnkhw,nkhw->qnhw", slopes.clamp_min(0), maps).relu_()


def weighted(maps: Tensor, weights: Tensor) -> Tensor:
    """The positive part of maps `[N, k, h, w]` summed with weights `[K, N, k]`, as `[K, N, h, w]`."""
    return torch.einsum("qnk,nkhw->qnhw", weights, maps).relu_()
