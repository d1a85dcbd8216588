"""Weights that stay near what they were before the stage."""

from __future__ import annotations

from types import EllipsisType
from typing import Annotated

from torch import Tensor

from repertoire.losses import Loss, consolidation
from repertoire.methods._base import Stage
from repertoire.methods._classifier import Classifier
from repertoire.methods._staged import Among, Preserving, Weights, weights_of
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["L2Previous"]


@register("methods", "l2-previous", paper="rehearsal-free-closer-look")
class L2Previous(Preserving):
    r"""Learns new classes with weights that are drawn to what they were before the stage, all equally.

    Smith et al., *A Closer Look at Rehearsal-Free Continual Learning* (2022) find that this simplest of penalties does
    better than weighing each weight by its importance (method `ewc`), and than distilling features (`feature-kd`),
    where the network was pretrained:

    .. math:: \ell + \lambda \sum_i (w_i - w_i^*)^2

    with :math:`w^*` the weights as the stage before left them. Rows of the head for new classes are free. With `only`,
    the penalty is on a part of the network, and the rest is free: on the attention of a vision transformer
    (`only=attention`), the authors find it to do better than prompts.

    The strength goes with the learning rate: a gradient step overshoots where 2 λ times the rate comes near 1. Nothing
    but the earlier weights is kept.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits.
        strength: lambda, 0 or more.
        only: a part of the names of the weights that are held, "attention" or "backbone" for instance; all if empty.
        among: which classes compete in the loss of a later stage: "stage" (default), those that occur in it, so that
            classes without samples are not pushed down; "known", all.
        distil: weight of the old network's answers as in method `lwf`, 0 or more.
        temperature: of these answers, positive.
        features: weight of the old network's features as in method `feature-kd`, 0 or more.

    Raises:
        ConfigError: a name that no weight has, or an option out of range; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, L2Previous, Normalize, Stage
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = L2Previous(model, losses.CrossEntropy())
        >>> model.head.grow(4)
        >>> method.begin(Stage(1, 2, ("a", "b", "c", "d"), new=(2, 3)))
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([2, 2, 3, 3]), torch.arange(4))
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'loss', 'penalty']
    """

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        strength: Annotated[float, AtLeast(0)] = 0.01,
        only: str = "",
        among: Among = "stage",
        distil: Annotated[float, AtLeast(0)] = 0.0,
        temperature: Annotated[float, Positive] = 2.0,
        features: Annotated[float, AtLeast(0)] = 0.0,
    ) -> None:
        super().__init__(model, loss, among, distil, temperature, features)
        self.strength = strength
        self.only = only
        weights_of(model, only)
        self.anchor: Weights | None
        self.register_module("anchor", None)
        self._held: list[tuple[str, slice | EllipsisType]] = []

    def begin(self, stage: Stage) -> None:
        super().begin(stage)
        self.anchor, self._held = None, []
        if self.known and self.strength:
            weights = weights_of(self.model, self.only)
            self._held = [(name, self.old_rows(name)) for name in weights]
            self.anchor = Weights({name: weights[name][rows] for name, rows in self._held})

    def penalty(self) -> Tensor | None:
        if self.anchor is None:
            return None
        old = [self.model.get_parameter(name)[rows] for name, rows in self._held]
        return consolidation(old, list(self.anchor), [self.strength] * len(old))
