"""SimSiam: one network, a predictor, and a gradient that stops."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.losses import reduce
from repertoire.methods._base import Method, Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._mlp import mlp
from repertoire.methods._precision import at_least_float32
from repertoire.methods._readout import read_out
from repertoire.methods._recipe import UNLABELLED
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["SimSiam"]


@register("methods", "simsiam")
class SimSiam(Method):
    r"""SimSiam: pretraining without labels, negatives, or a second network; each view predicts the other.

    Chen and He, *Exploring Simple Siamese Representation Learning* (2021). With the projection z of a view and its
    prediction p, and no gradient through the z that is predicted:

    .. math:: \ell = -\tfrac{1}{2} \cos(p_1, z_2) - \tfrac{1}{2} \cos(p_2, z_1)

    The loss is the mean over the batch; -1 is its minimum, which a collapsed network reaches too: look at a probe.
    Both views pass together, so that batch normalisation sees them together; the released code passes them one after
    the other.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        dimensions: width of projections and of the projector's two hidden layers; the backbone's own width if None,
            which is the paper's 2048.
        bottleneck: width of the predictor's hidden layer; a quarter of `dimensions` if None, as in the paper.

    Raises:
        ConfigError: a width that is not positive.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, SimSiam
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = SimSiam(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2)))
        >>> batch = Batch((torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)), torch.full((4,), -1), torch.arange(4))
        >>> -1 <= method.step(batch).logs["loss"] <= 1
        tensor(True)
    """

    needs = Needs(views=2, per_sample=False, augmentation="simclr", defaults=UNLABELLED)

    def __init__(
        self,
        model: Classifier,
        dimensions: Annotated[int, AtLeast(1)] | None = None,
        bottleneck: Annotated[int, AtLeast(1)] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        width = model.backbone.out_features
        dimensions = dimensions or width
        self.projector = mlp(width, dimensions, dimensions, dimensions, last_norm=True)
        self.predictor = mlp(dimensions, bottleneck or max(1, dimensions // 4), dimensions)

    def objective(self, features: Tensor, batch: Batch) -> Step:
        projected = self.projector(features)
        predicted = self.predictor(projected)
        first, second = at_least_float32(projected.detach()).chunk(2)
        cosines = F.cosine_similarity(at_least_float32(predicted), torch.cat([second, first]), dim=1)
        loss = -reduce(cosines, "mean")
        readout, logs = read_out(self.model.head, features, batch.targets.repeat(2))
        return Step(loss + readout, {"loss": loss.detach(), **logs})
