"""One strength for each weight says how firmly it is held: frozen, protected or free."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError
from repertoire.losses import Loss, consolidate_, consolidation
from repertoire.methods._base import Stage
from repertoire.methods._classifier import Classifier
from repertoire.methods._staged import Among, Preserving, Weights, weights_of
from repertoire.ranges import AtLeast, Share
from repertoire.registry import register

__all__ = ["Consolidation"]


@register("methods", "consolidation", paper="lifelong-framework")
class Consolidation(Preserving):
    r"""Learns new classes with weights that are each held by a strength of their own: frozen, protected, or free.

    Ling and Bohn, *A Deep Learning Framework for Lifelong Machine Learning* (2021) get all that learning over a life
    should have out of one term, whose strengths b are set by groups of weights and changed from task to task:

    .. math:: \ell + \sum_i b_i\,(w_i - w_i^*)^2

    with :math:`w^*` the weights before the stage (:func:`repertoire.losses.consolidation`). Which group a weight is in,
    its name says: b is infinite for what `freeze` names, zero for what `free` names, and for all others `strength`
    times what the weight is worth, which grows with each stage by 1 ("task") or by its Fisher information ("fisher"),
    after it was multiplied by `decay`, so that what is old is let go gracefully. Rows of the head for new classes are
    free in the stage that brings them.

    A frozen weight is the same bit for bit after every update, whatever momentum and weight decay do, and frozen
    batch normalisation keeps its statistics. With `rate`, protected weights are not drawn by a gradient but moved after
    each update by the proximal step of that learning rate, which is stable whatever the strength; the gradient form
    overshoots where 2 b times the learning rate comes near 1.

    With "task" and a decay of 0 it is method `l2-previous`; "fisher" and twice the strength are method `ewc`, where
    nothing is frozen. The paper also adds units for new tasks, which a network whose layers are those of its
    configuration cannot; here only the head grows.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits.
        strength: of protected weights, 0 or more.
        importance: what a weight is worth: "task" (default), the same for all; "fisher", its Fisher information on the
            samples of each stage.
        freeze: a part of the names of weights that are frozen; "head" by default, which are the rows of old classes;
            none if empty.
        free: a part of the names of weights that are free, such as "backbone"; none if empty.
        decay: what is left of the worth of earlier stages at the end of each, from 0 to 1 (default).
        rate: learning rate of the proximal step; 0 (default) for a gradient.
        fisher_samples: how many of a stage to take the Fisher information from; all if None.
        among: which classes compete in the loss of a later stage: "stage" (default), those that occur in it; "known",
            all.

    Attributes:
        worth: of each weight that is not frozen or free by name.
        anchor: the weights before the stage.

    Raises:
        ConfigError: a name that no weight has, one that is both frozen and free, or an option out of range; see also
            `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Consolidation, Normalize, Stage
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> before = model.head.linear.weight.detach().clone()
        >>> model.head.grow(4)
        >>> method = Consolidation(model, losses.CrossEntropy())
        >>> method.begin(Stage(1, 2, ("a", "b", "c", "d"), new=(2, 3)))
        >>> with torch.no_grad():
        ...     _ = model.head.linear.weight.add_(1)  # whatever an optimiser does
        >>> method.after_update()
        >>> bool((model.head.linear.weight[:2] == before).all()), bool((model.head.linear.weight[2:] > 0).all())
        (True, True)
    """

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        strength: Annotated[float, AtLeast(0)] = 0.01,
        importance: Literal["task", "fisher"] = "task",
        freeze: str = "head",
        free: str = "",
        decay: Annotated[float, Share] = 1.0,
        rate: Annotated[float, AtLeast(0)] = 0.0,
        fisher_samples: Annotated[int, AtLeast(1)] | None = None,
        among: Among = "stage",
    ) -> None:
        super().__init__(model, loss, among)
        self.strength = strength
        self.importance = importance
        self.freeze = freeze
        self.free = free
        self.decay = decay
        self.rate = rate
        self.fisher_samples = fisher_samples
        learning = weights_of(model)
        self._frozen = list(weights_of(model, freeze)) if freeze else []
        freed = set(weights_of(model, free)) if free else set()
        both = sorted(freed.intersection(self._frozen))
        if both:
            raise ConfigError(f"freeze={freeze!r} and free={free!r} both name {', '.join(both[:6])}: name it once")
        protected = {name: weight for name, weight in learning.items() if name not in {*self._frozen, *freed}}
        self.worth = Weights({name: self._nothing(name, weight) for name, weight in protected.items()})
        self.anchor: Weights | None
        self.register_module("anchor", None)

    def _nothing(self, name: str, weight: Tensor) -> Tensor:
        """A worth of zero: for each weight, or one for all of a tensor, or of a row for a class."""
        if self.importance == "fisher":
            return torch.zeros_like(weight)
        rows = len(weight) if self.has_class_rows(name) else 1
        return weight.new_zeros(rows, *[1] * (weight.ndim - 1)) if weight.ndim else weight.new_zeros(())

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.known and self.freeze:
            for name, module in self.model.named_modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and self.freeze in f"{name}.weight":
                    module.eval()
        return self

    def begin(self, stage: Stage) -> None:
        super().begin(stage)
        self.anchor = None
        if self.known:
            names = [*(self.worth.names if self.strength else ()), *self._frozen]
            self.anchor = Weights({name: self.model.get_parameter(name) for name in names})
        self.train(self.training)

    def _strengths(self) -> list[Tensor | float]:
        """One for each of the anchors."""
        held: list[Tensor | float] = []
        for name in self.anchor.names if self.anchor is not None else ():
            if name not in self._frozen:
                held.append(self.strength * self.worth[name])
            elif not self.has_class_rows(name):
                held.append(float("inf"))
            else:
                weight = self.model.get_parameter(name)
                rows = weight.new_zeros(len(weight), *[1] * (weight.ndim - 1))
                rows[: self.known] = float("inf")
                held.append(rows)
        return held

    def _weights(self) -> list[Tensor]:
        return [self.model.get_parameter(name) for name in self.anchor.names] if self.anchor is not None else []

    def penalty(self) -> Tensor | None:
        if self.anchor is None or self.rate or not self.strength:
            return None
        names = self.worth.names
        weights = [self.model.get_parameter(name) for name in names]
        return consolidation(
            weights, [self.anchor[name] for name in names], [self.strength * self.worth[name] for name in names]
        )

    @torch.no_grad()
    def after_update(self) -> None:
        super().after_update()
        if self.anchor is None:
            return
        strengths = self._strengths()
        if self.rate:
            consolidate_(self._weights(), list(self.anchor), strengths, self.rate)
            return
        for name, strength in zip(self.anchor.names, strengths, strict=True):
            if name in self._frozen:
                consolidate_([self.model.get_parameter(name)], [self.anchor[name]], [strength])

    @torch.no_grad()
    def end(self, stage: Stage) -> None:
        found: dict[str, Tensor] = {}
        if self.importance == "fisher" and self.worth.names:
            found = self.information(stage, self.worth.names, "model", self.fisher_samples)
        for name in self.worth.names:
            before = self.decay * self.worth[name]
            self.worth.set(name, before + found[name].to(before) if found else before + 1)
