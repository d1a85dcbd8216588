"""The base of BYOL and its descendants: a predictor after the projector, and a slow copy without it."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.methods._classifier import Classifier
from repertoire.methods._mlp import mlp
from repertoire.methods._two_networks import TwoNetworks
from repertoire.ranges import AtLeast, Share

__all__ = ["Predicting"]


class Predicting(TwoNetworks):
    """Base of methods in which a network predicts what its slow copy says of another view.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        momentum: of the teacher, in [0, 1].
        steps: updates of the whole run, over which the momentum rises to one as a cosine; constant if None.
        dimensions: width of the projections.
        hidden: width of the hidden layers of projector and predictor; twice the backbone's own width if None.

    Raises:
        ConfigError: a width or steps that are not positive, or a momentum out of range.
    """

    def __init__(
        self,
        model: Classifier,
        momentum: Annotated[float, Share] = 0.996,
        steps: Annotated[int, AtLeast(1)] | None = None,
        dimensions: Annotated[int, AtLeast(1)] = 256,
        hidden: Annotated[int, AtLeast(1)] | None = None,
    ) -> None:
        width = model.backbone.out_features
        hidden = hidden or 2 * width
        super().__init__(model, mlp(width, hidden, dimensions), momentum, steps)
        self.predictor = mlp(dimensions, hidden, dimensions)

    def compare(self, views: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        first, second = views
        features = self.model.embed(torch.cat([first, second]))
        predicted = self.predictor(self.projector(features))
        targets = self.teacher(torch.cat([second, first]))
        return self.match(predicted, targets), features

    def match(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """The loss of predictions and targets `[2N, d]`, those of the first view of every image first."""
        raise NotImplementedError
