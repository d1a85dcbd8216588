"""Supervised training with a penalty that keeps the network able to learn what comes later."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from repertoire.data import Batch
from repertoire.losses import Loss, SpectralPenalty, consolidation, wasserstein_to_init
from repertoire.methods._base import Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._mix import Mix
from repertoire.methods._staged import Weights, weights_of
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["Regularised"]


@register("methods", "regularised", paper="spectral-regularisation")
class Regularised(Classifying):
    r"""Supervised training with a penalty on weights that keeps the network able to learn one task after another.

    Lewandowski et al., *Learning Continually by Spectral Regularization* (2025): what a network learns easily at the
    beginning, it learns worse and worse after many tasks. The loss is :math:`\ell + \lambda\,\Omega(w)`, where
    :math:`\Omega` is

    - "spectral": :math:`\sum_l (\sigma_l^k - 1)^2` over the largest singular values of the layers, with what belongs to
      biases and normalisation (:class:`repertoire.losses.SpectralPenalty`);
    - "wasserstein": the distance of the sorted weights of each layer from those that it began with
      (:func:`repertoire.losses.wasserstein_to_init`), of the paper's first version;
    - "l2-init": the squared distance of the weights from those that they began with, Kumar et al., *Maintaining
      Plasticity in Continual Learning via Regenerative Regularization* (2023);
    - "l2": the squared length of the weights.

    It does not keep what was learned; the other methods for stages do. A penalty looks at weights and at nothing of a
    batch, and the first of them goes on with an iteration from update to update: it is no loss on logits, and more
    than a rule may hold. It is therefore an affair of a method, and the loss, the head and the mixing of samples are of
    the user's choice. The first weights are those of the first stage, kept through all of them; those of classes that
    come later are the first ones of their rows.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits.
        penalty: "spectral" (default), "wasserstein", "l2-init" or "l2".
        strength: lambda, 0 or more.
        power: k of the spectral penalty, 1 or more; 2 by default.
        mix: "none" (default), "mixup" or "cutmix".
        alpha: of the Beta distribution of the mixing, positive.

    Raises:
        ConfigError: no weight learns, or an option out of range; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, Regularised
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = Regularised(model, losses.CrossEntropy())
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'loss', 'penalty']
    """

    needs = Needs(labels="required", step="whole")

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        penalty: Literal["spectral", "wasserstein", "l2-init", "l2"] = "spectral",
        strength: Annotated[float, AtLeast(0)] = 1e-3,
        power: Annotated[int, AtLeast(1)] = 2,
        mix: Mix = "none",
        alpha: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__(model, loss, mix, alpha)
        self.penalty = penalty
        self.strength = strength
        self.spectral: SpectralPenalty | None
        self.initial: Weights | None
        self.register_module("spectral", SpectralPenalty(model, power) if penalty == "spectral" else None)
        from_init = penalty in ("wasserstein", "l2-init")
        self.register_module("initial", Weights(weights_of(model)) if from_init else None)

    def _penalty(self, loss: Tensor) -> Tensor:
        if self.spectral is not None:
            return self.spectral(self.model, loss.detach())
        weights = list(weights_of(self.model).values())
        if self.initial is None:
            return consolidation(
                weights, [weight.detach().new_zeros(weight.shape) for weight in weights], [1.0] * len(weights)
            )
        weights = [self.model.get_parameter(name) for name in self.initial.names]
        first = list(self.initial)
        if self.penalty == "wasserstein":
            return wasserstein_to_init(weights, first)
        return consolidation(weights, first, [1.0] * len(weights))

    def step(self, batch: Batch) -> Step:
        batch = self.transform(batch)
        found = self.classify(self.model.embed(batch.images), batch.targets)
        held = self._penalty(found.loss)
        loss = found.loss + self.strength * held
        return Step(loss, {**found.logs, "loss": loss.detach(), "penalty": held.detach()})
