"""Features that stay what they were before the stage, on the new samples."""

from __future__ import annotations

from typing import Annotated

from repertoire.losses import Loss
from repertoire.methods._classifier import Classifier
from repertoire.methods._staged import Among, Preserving
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["FeatureKD"]


@register("methods", "feature-kd", paper="rehearsal-free-closer-look")
class FeatureKD(Preserving):
    r"""Learns new classes with features that stay near those of the network from before the stage.

    Smith et al., *A Closer Look at Rehearsal-Free Continual Learning* (2022) compare it with penalties on weights
    (methods `l2-previous` and `ewc`). With d features f before the head, and g those of a copy of the network from
    before the stage, on the new samples:

    .. math:: \ell + \frac{\lambda}{d}\,\lVert f(x) - g(x) \rVert^2

    It is the mean over features, so that the weight means the same for networks of any width. Old answers are not asked
    for, and the rows of the head for classes that do not compete are as they were, but for weight decay. Of a network
    of which only the head learns, features cannot move, and the method is supervised training. What is kept is a copy
    of the network.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits.
        weight: lambda, 0 or more.
        among: which classes compete in the loss of a later stage: "stage" (default), those that occur in it; "known",
            all.

    Raises:
        ConfigError: an option out of range; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, FeatureKD, Normalize, Stage
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = FeatureKD(model, losses.CrossEntropy())
        >>> model.head.grow(4)
        >>> method.begin(Stage(1, 2, ("a", "b", "c", "d"), new=(2, 3)))
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([2, 2, 3, 3]), torch.arange(4))
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'feature_loss', 'loss']
    """

    def __init__(
        self, model: Classifier, loss: Loss, weight: Annotated[float, AtLeast(0)] = 0.1, among: Among = "stage"
    ) -> None:
        super().__init__(model, loss, among, features=weight)
