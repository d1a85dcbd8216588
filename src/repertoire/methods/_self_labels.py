"""BYOL that also learns from the images of a batch which it takes to be alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ConfigError
from repertoire.losses import reduce
from repertoire.methods._classifier import Classifier
from repertoire.methods._precision import at_least_float32
from repertoire.methods._predicting import Predicting
from repertoire.methods._two_networks import squared_distance
from repertoire.ops import pair_rows
from repertoire.ranges import AtLeast, Share
from repertoire.registry import register

__all__ = ["SelfLabelBYOL"]


@register("methods", "byol-self-labels", paper="self-labeling-byol")
class SelfLabelBYOL(Predicting):
    r"""BYOL that labels the pairs of a batch itself, and also draws together the images that it takes to be alike.

    Garg and Jain, *Self-Labeling Refinement for Robust Representation Learning with Bootstrap Your Own Latent* (2022).
    To BYOL's loss for an image comes one for the other images j of the batch. By cosine (CCSL), with the cosine
    :math:`s_{ij}` of the prediction for image i and the teacher's projection of the other view of image j:

    .. math:: \ell_i = \frac{\sum_{j \ne i} w_{ij}\,(2 - 2 s_{ij})}{\sum_{j \ne i} w_{ij}}, \qquad
        w_{ij} = s_{ij}\,[s_{ij} \ge \theta_+]

    and by sigmoid (CSSL), with their dot product :math:`a_{ij}` and :math:`p_{ij} = \sigma(a_{ij})`, the mean over the
    pairs that are one or the other of

    .. math:: -\log p_{ij} \text{ where } p_{ij} \ge \theta_+, \qquad
        -\log(1 - p_{ij}) \text{ where } p_{ij} \le \theta_-

    The labels take no gradient, and an image without such a pair adds nothing. The paper gives the ideas and no more
    than sketches of the weights, and the losses are missing from the code released with it, which has their thresholds:
    the weights, the mean over an image's pairs and the plain sum with BYOL's loss are ours.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        by: "cosine" (default), or "sigmoid".
        positive: theta_+, from which on images are alike: a cosine or a probability; above 1 none are, which is BYOL.
        negative: theta_-, up to which they are not, of the sigmoid only.
        weight: of the loss for other images, 0 or more.
        momentum, steps, dimensions, hidden: see `BYOL`.

    Raises:
        ConfigError: an unknown `by`, thresholds in the wrong order, or a negative weight; see also `BYOL`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, SelfLabelBYOL
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = SelfLabelBYOL(model, by="sigmoid", momentum=0.99)
        >>> batch = Batch((torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)), torch.full((4,), -1), torch.arange(4))
        >>> method.step(batch).loss.backward()
        >>> method.after_update()  # after the step of the optimiser: the teacher follows
    """

    needs = replace(Predicting.needs, within_rank=True)

    def __init__(
        self,
        model: Classifier,
        by: Literal["cosine", "sigmoid"] = "cosine",
        positive: float = 0.8,
        negative: float = 0.2,
        weight: Annotated[float, AtLeast(0)] = 1.0,
        momentum: Annotated[float, Share] = 0.996,
        steps: Annotated[int, AtLeast(1)] | None = None,
        dimensions: Annotated[int, AtLeast(1)] = 256,
        hidden: Annotated[int, AtLeast(1)] | None = None,
    ) -> None:
        # A weight below zero would push apart what is alike.
        if not positive > 0 or (by == "sigmoid" and not positive > negative):
            raise ConfigError(
                f"positive must be above 0, and above negative by sigmoid, found {positive} and {negative}"
            )
        super().__init__(model, momentum, steps, dimensions, hidden)
        self.by = by
        self.positive, self.negative = positive, negative
        self.weight = weight

    def match(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """BYOL's loss, and that of the other images of the batch in each direction."""
        halves = zip(predicted.chunk(2), targets.chunk(2), strict=True)
        losses = [self._others(at_least_float32(q), at_least_float32(z)) for q, z in halves]
        others = torch.stack([reduce(each, "mean") for each in losses]).sum()
        return 2 * reduce(squared_distance(predicted, targets), "mean") + self.weight * others

    def _others(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """The loss of each prediction with the targets of other images, `[N]`."""
        if self.by == "cosine":
            return pair_rows(predicted, targets, self._by_cosine, similarity="cosine")
        return pair_rows(predicted, targets, self._by_sigmoid)

    def _by_cosine(self, strip: Tensor, rows: slice) -> Tensor:
        alike = (strip >= self.positive) & _other_images(strip, rows)
        weights = torch.where(alike, strip, 0).detach()
        return (weights * (2 - 2 * strip)).sum(1) / weights.sum(1).clamp_min(torch.finfo(strip.dtype).tiny)

    def _by_sigmoid(self, strip: Tensor, rows: slice) -> Tensor:
        others, p = _other_images(strip, rows), strip.detach().sigmoid()
        alike, unlike = (p >= self.positive) & others, (p <= self.negative) & others
        losses = alike * F.softplus(-strip) + unlike * F.softplus(strip)
        return losses.sum(1) / (alike | unlike).sum(1).clamp_min(1)


def _other_images(strip: Tensor, rows: slice) -> Tensor:
    """Mask of the pairs whose row and column belong to different images, bool `[n, M]`."""
    columns = torch.arange(strip.shape[1], device=strip.device)
    return columns != columns[rows, None]
