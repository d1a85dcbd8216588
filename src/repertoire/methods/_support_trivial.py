"""Training a classifier by prototypical parts."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError, option
from repertoire.heads import PrototypeSet, SupportTrivial
from repertoire.losses import closeness_loss, cross_entropy, discrimination_loss, orthogonality_loss, reduce
from repertoire.methods._base import Method, Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.ops import Memory
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["SupportTrivialPrototypes"]


@register("methods", "support-trivial", paper="st-protopnet")
class SupportTrivialPrototypes(Method, Memory):
    r"""Trains a classifier that explains itself by parts: this looks like that part of that class.

    Wang et al., *Learning Support and Trivial Prototypes for Interpretable Image Classification* (2023). The head
    (:class:`repertoire.heads.SupportTrivial`, which this method brings) compares the cells of the last map with two
    sets of prototypes. For each set, with the similarities :math:`s_{ck}` of an image of class y:

    .. math::
        \ell = \mathrm{CE} - \lambda_1 \max_k s_{yk} + \lambda_2 \max_{c \ne y, k} s_{ck} + \lambda_3 \ell_\mathrm{orth}
             + \lambda_4 \ell_\mathrm{between} + \lambda_5 \sum_{j, c \ne j} |w_{j,ck}|

    where :math:`\ell_\mathrm{between}` is :func:`repertoire.losses.closeness_loss` for support prototypes and
    :func:`repertoire.losses.discrimination_loss` for trivial ones. The sets take turns, a batch each, on the same
    backbone; their logits are added to predict. The weights are those of the authors' code, which also keeps w fixed
    until a last phase of its own and moves each prototype to the nearest cell of a training image now and then; here w
    is trained along, and prototypes stay where they were trained to.

    What an image has in common with the prototypes of a class is shown by
    :class:`repertoire.explain.PrototypeParts`.

    Args:
        model: normalisation, backbone and head.
        cluster: weight of the similarity to the nearest prototype of the image's class.
        separation_support, separation_trivial: weight of that to the nearest of other classes, for either set.
        orthogonality: weight of the right angles within a class.
        between: weight of closeness and discrimination.
        sparsity: weight of the connections to prototypes of other classes.

    Raises:
        ConfigError: a head without prototypes, or a negative weight.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, SupportTrivialPrototypes
        >>> net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.SupportTrivial(net.out_features, 2))
        >>> method = SupportTrivialPrototypes(model)
        >>> sorted(method.step(Batch((torch.rand(4, 1, 8, 8),), torch.tensor([0, 1, 0, 1]), torch.arange(4))).logs)
        ['accuracy', 'loss', 'support_loss', 'trivial_loss']
    """

    needs = Needs(labels="required", head="support-trivial", takes_maps=True, step="whole")
    turn: Tensor

    def __init__(
        self,
        model: Classifier,
        cluster: Annotated[float, AtLeast(0)] = 0.8,
        separation_support: Annotated[float, AtLeast(0)] = 0.48,
        separation_trivial: Annotated[float, AtLeast(0)] = 0.08,
        orthogonality: Annotated[float, AtLeast(0)] = 1e-3,
        between: Annotated[float, AtLeast(0)] = 1.0,
        sparsity: Annotated[float, AtLeast(0)] = 1e-4,
    ) -> None:
        super().__init__()
        if not isinstance(model.head, SupportTrivial):
            raise ConfigError(
                f"method 'support-trivial' needs a head with prototypes, found {type(model.head).__name__}; use "
                f"{option('head', 'support-trivial')}, or leave {option('head')} out"
            )
        self.separation = {"support": separation_support, "trivial": separation_trivial}
        self.weights = {
            "cluster": cluster,
            "orthogonality": orthogonality,
            "between": between,
            "sparsity": sparsity,
        }
        self.model = model
        self.register_buffer("turn", torch.tensor(0))

    def step(self, batch: Batch) -> Step:
        head = self.model.head
        assert isinstance(head, SupportTrivial)
        maps = self.model.maps(batch.images)
        logs: dict[str, Tensor] = {}
        self.remember(len(batch))
        loss = maps.new_zeros((), dtype=torch.promote_types(maps.dtype, torch.float32))
        total: Tensor | float = 0.0
        parts = head.prototypes()
        for place, (name, part) in enumerate(parts.items()):
            similarities = part.similarities(maps)
            logits = part.logits(similarities)
            one = self._loss(name, part, similarities, logits, batch.targets)
            logs[f"{name}_loss"] = one.detach()
            # A factor rather than a branch: the set whose turn it is not has gradients, of zero.
            loss = loss + one * (self.turn % len(parts) == place)
            total = total + logits.detach()
        assert isinstance(total, Tensor)
        accuracy = (total.argmax(1) == batch.targets).float().mean()
        return Step(loss, {"loss": loss.detach(), "accuracy": accuracy, **logs})

    def _loss(self, name: str, part: PrototypeSet, similarities: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        most = similarities.amax((3, 4))
        own = F.one_hot(targets.long(), most.shape[1]).bool()[:, :, None]
        cluster = reduce(most.masked_fill(~own, 0).amax((1, 2)), "mean")
        separation = reduce(most.masked_fill(own, 0).amax((1, 2)), "mean")
        between = closeness_loss if name == "support" else discrimination_loss
        classes, per_class, _ = part.vectors.shape
        of_others = 1 - torch.eye(classes, device=most.device).repeat_interleave(per_class, 1)
        weights = self.weights
        return (
            cross_entropy(logits, targets)
            - weights["cluster"] * cluster
            + self.separation[name] * separation
            + weights["orthogonality"] * orthogonality_loss(part.vectors)
            + weights["between"] * between(part.vectors)
            + weights["sparsity"] * (part.connections * of_others).abs().sum()
        )

    def commit(self) -> None:
        self.turn.add_(1)
