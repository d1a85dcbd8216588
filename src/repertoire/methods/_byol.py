"""BYOL: the view of one network predicts what its slow copy says of the other."""

from __future__ import annotations

from torch import Tensor

from repertoire.losses import reduce
from repertoire.methods._predicting import Predicting
from repertoire.methods._two_networks import squared_distance
from repertoire.registry import register

__all__ = ["BYOL"]


@register("methods", "byol")
class BYOL(Predicting):
    r"""BYOL: pretraining without labels or negatives; a network predicts what a slow copy of it says of the other view.

    Grill et al., *Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning* (2020). With the prediction q
    of the student for one view and the projection z' of the teacher for the other, both scaled to unit length:

    .. math:: \ell = \lVert q(z_1) - z'_2 \rVert^2 + \lVert q(z_2) - z'_1 \rVert^2

    The loss is the mean over the batch. The teacher is a moving average of the student, without the predictor.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        momentum: of the teacher, in [0, 1]. The paper's 0.996 is for a thousand epochs of ImageNet: a run of a few
            thousand steps wants 0.99 or less.
        steps: updates of the whole run, over which the momentum rises to one as a cosine, as in the paper; constant
            if None.
        dimensions: width of the projections.
        hidden: width of the hidden layers of projector and predictor; twice the backbone's own width if None, as in the
            paper.

    Raises:
        ConfigError: a width or steps that are not positive, or a momentum out of range.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import BYOL, Classifier, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = BYOL(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2)), momentum=0.99)
        >>> batch = Batch((torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)), torch.full((4,), -1), torch.arange(4))
        >>> method.step(batch).loss.backward()
        >>> method.after_update()  # after the step of the optimiser: the teacher follows
    """

    def match(self, predicted: Tensor, targets: Tensor) -> Tensor:
        return 2 * reduce(squared_distance(predicted, targets), "mean")
