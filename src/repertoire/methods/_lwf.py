"""Learning without forgetting: the old network's answers to new samples are learned beside their labels."""

from __future__ import annotations

from typing import Annotated

from repertoire.losses import Loss
from repertoire.methods._classifier import Classifier
from repertoire.methods._staged import Among, Preserving
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["LwF"]


@register("methods", "lwf", paper="rehearsal-free-closer-look")
class LwF(Preserving):
    r"""Learns new classes, and what the network said of the new samples before: knowledge distillation over time.

    Li and Hoiem, *Learning without Forgetting* (2016). With logits z over the classes known before the stage, v those
    of a copy of the network from before it, and a temperature T:

    .. math:: \ell + \lambda\,\mathrm{KL}\bigl(\mathrm{softmax}(v / T) \,\|\, \mathrm{softmax}(z / T)\bigr)

    The paper has a head for each task, so that the loss of the new samples does not touch the answers for old classes;
    `among=stage` is that with one head. It minimises a cross-entropy, which has the same gradient, without the factor
    T² of method `distil`, and asks the old network once for each image, where here it looks at every view. Avalanche's
    plugin has the same term, and lets all classes compete (`among=known`). What is kept is a copy of the network.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits.
        weight: lambda, 0 or more; 1 in the paper.
        temperature: T, positive; 2 in the paper.
        features: weight of the old network's features as in method `feature-kd`, 0 or more.
        among: which classes compete in the loss of a later stage: "stage" (default), those that occur in it; "known",
            all.

    Raises:
        ConfigError: an option out of range; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, LwF, Normalize, Stage
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = LwF(model, losses.CrossEntropy())
        >>> model.head.grow(4)
        >>> method.begin(Stage(1, 2, ("a", "b", "c", "d"), new=(2, 3)))
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([2, 2, 3, 3]), torch.arange(4))
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'distillation_loss', 'loss']
    """

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        weight: Annotated[float, AtLeast(0)] = 1.0,
        temperature: Annotated[float, Positive] = 2.0,
        features: Annotated[float, AtLeast(0)] = 0.0,
        among: Among = "stage",
    ) -> None:
        super().__init__(model, loss, among, weight, temperature, features)
