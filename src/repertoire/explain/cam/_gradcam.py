"""Grad-CAM: where a network looked when it chose a class."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.explain.cam._activation import ActivationMap
from repertoire.registry import register

__all__ = ["GradCAM"]


@register("explainers", "grad-cam", paper="grad-cam")
class GradCAM(ActivationMap):
    r"""Grad-CAM: feature maps of a late layer, weighted by how much the score of a class grows with each.

    Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization* (2016). With
    :math:`A^k` the K maps of a layer, each of Z pixels, and :math:`y^c` the score of class c before the softmax:

    .. math::
        \alpha_k = \frac{1}{Z} \sum_{i,j} \frac{\partial y^c}{\partial A^k_{ij}}, \qquad
        L = \mathrm{ReLU}\Big( \sum_k \alpha_k A^k \Big)

    L is enlarged bilinearly to the size of the images. For a network that ends with a global average and a linear
    classifier, it is the positive part of the class activation map (CAM), divided by Z.

    The network runs once and as cheaply as it can: without a graph up to the layer, with one from there to the scores,
    and backward over that part only. It runs in evaluation mode, so that neither its statistics nor its weights change;
    the caller's modes, gradients and hooks are left as they were, also when the network fails.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import GradCAM
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> maps = GradCAM()(net, torch.rand(2, 3, 16, 16), torch.tensor([0, 4]))
        >>> maps.shape
        torch.Size([2, 16, 16])
    """

    def _heat(self, maps: Tensor, slopes: Tensor) -> Tensor:
        return torch.einsum("qnk,nkhw->qnhw", slopes.mean((3, 4)), maps).relu_()
