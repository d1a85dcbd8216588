"""Elastic weight consolidation: weights are held where earlier stages need them."""

from __future__ import annotations

import warnings
from typing import Annotated, Literal

import torch
from torch import Tensor

from repertoire.errors import RepertoireWarning
from repertoire.losses import Loss, consolidation
from repertoire.methods._base import Stage
from repertoire.methods._classifier import Classifier
from repertoire.methods._staged import Among, Preserving, Weights, weights_of
from repertoire.ranges import AtLeast, Positive, Share
from repertoire.registry import register

__all__ = ["EWC"]


@register("methods", "ewc", paper="rehearsal-free-closer-look")
class EWC(Preserving):
    r"""Learns new classes with weights that are held where the answers of earlier stages depend on them.

    Kirkpatrick et al., *Overcoming catastrophic forgetting in neural networks* (2017). With the diagonal F of the
    Fisher information of the weights w* that a stage ended with, on its own samples:

    .. math:: \ell + \frac{\lambda}{2} \sum_i F_i\,(w_i - w_i^*)^2

    Over several stages, `form` says what is summed. "online" is Schwarz et al., *Progress and Compress* (2018): one
    penalty around the last weights, with the information of all stages, the older the less,
    :math:`F \leftarrow \gamma F + F_t`; what has one more penalty around weights that had been held already would count
    earlier stages twice. "separate" is the original, a penalty for each stage around its own weights. Their sum is a
    parabola for each weight, so that both need the same memory, that of two networks:

    .. math:: \sum_t F_t (w - w_t^*)^2 = A\,(w - c)^2 + \text{const}, \qquad A = \sum_t F_t, \quad
        c = \frac{1}{A} \sum_t F_t w_t^*

    The information is the mean over samples of the squared gradient of each, in evaluation mode
    (:func:`repertoire.weights.fisher_diagonal`), over the labels that the network expects, which is the definition, or
    those of the data, which vanishes where a network fits its data perfectly. Avalanche's plugin squares the gradient
    of the mean loss of a batch with the labels of the data, which is the same only with batches of one sample, sums a
    penalty for each stage with its own copies, and has no factor of 1/2; its strengths are other numbers. Rows of the
    head for new classes have no information, and are free.

    A network that was trained with another method before has no information, and nothing is held in the first stage
    that it learns with this one.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits; the information is that of the softmax of the logits, whatever the loss.
        strength: lambda, 0 or more. The information is often small: strengths from 10 to 100,000 are common.
        form: "online" (default) or "separate".
        decay: gamma, from 0 (only the last stage counts) to 1 (default, all alike), in both forms.
        labels: "model" (default): the expectation over the network's answers, exact for up to 20 classes, above with
            one label that is drawn; "given": the labels of the data.
        fisher_samples: how many of a stage to take the information from; all if None.
        only: a part of the names of the weights that are held, "attention" or "backbone" for instance; all if empty.
        among: which classes compete in the loss of a later stage, and in the information: "stage" (default), those that
            occur in it, so that classes without samples are not pushed down; "known", all.
        distil: weight of the old network's answers as in method `lwf`, 0 or more.
        temperature: of these answers, positive.
        features: weight of the old network's features as in method `feature-kd`, 0 or more.

    Attributes:
        precision: F, or A, by the names of the weights.
        anchor: w*, or c.

    Raises:
        ConfigError: a name that no weight has, or an option out of range; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import EWC, Classifier, Normalize, Stage
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = EWC(model, losses.CrossEntropy(), strength=100)
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> method.end(Stage(0, 2, ("a", "b"), new=(0, 1), batches=lambda: [batch]))
        >>> bool((method.precision["head.linear.weight"] > 0).any())
        True
    """

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        strength: Annotated[float, AtLeast(0)] = 100.0,
        form: Literal["online", "separate"] = "online",
        decay: Annotated[float, Share] = 1.0,
        labels: Literal["model", "given"] = "model",
        fisher_samples: Annotated[int, AtLeast(1)] | None = None,
        only: str = "",
        among: Among = "stage",
        distil: Annotated[float, AtLeast(0)] = 0.0,
        temperature: Annotated[float, Positive] = 2.0,
        features: Annotated[float, AtLeast(0)] = 0.0,
    ) -> None:
        super().__init__(model, loss, among, distil, temperature, features)
        self.strength = strength
        self.form = form
        self.decay = decay
        self.labels = labels
        self.fisher_samples = fisher_samples
        self.only = only
        weights = weights_of(model, only)
        self.anchor = Weights(weights)
        self.precision = Weights({name: torch.zeros_like(weight) for name, weight in weights.items()})

    def begin(self, stage: Stage) -> None:
        super().begin(stage)
        if self.known and self.strength and not any(bool(values.any()) for values in self.precision):
            warnings.warn(
                "method 'ewc' has no information of the stages before, and holds nothing in this one: train all of "
                "them with it, or use method 'l2-previous', which needs none",
                RepertoireWarning,
                stacklevel=2,
            )

    def penalty(self) -> Tensor | None:
        if not self.known or not self.strength:
            return None
        weights = [self.model.get_parameter(name) for name in self.anchor.names]
        return self.strength / 2 * consolidation(weights, list(self.anchor), list(self.precision))

    @torch.no_grad()
    def end(self, stage: Stage) -> None:
        found = self.information(stage, self.anchor.names, self.labels, self.fisher_samples)
        for name, fresh in found.items():
            weight: Tensor = self.model.get_parameter(name)
            before = self.decay * self.precision[name]
            total = before + fresh.to(before)
            if self.form == "separate":
                # The middle of the sum of the parabolas; of none, the weight as it is.
                mean = (before * self.anchor[name] + fresh * weight) / total.where(total > 0, 1)
                weight = mean.where(total > 0, weight)
            self.precision.set(name, total)
            self.anchor.set(name, weight)
