"""Supervised classification with a loss on logits."""

from __future__ import annotations

from torch import Tensor

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import LogitsLoss, Loss, MultiLabelLoss, RegressionLoss
from repertoire.methods._base import Method, Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.registry import register

__all__ = ["Supervised"]


@register("methods", "supervised")
class Supervised(Method):
    r"""Trains a classifier end to end on labelled images.

    The loss of a batch is :math:`\sum_m c_m\,\ell(h_m(f(x)), y)`, where f is the backbone and the head h gives one pair
    of weight and logits, or several if it trains nested classifiers.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits.

    Raises:
        ConfigError: the loss is not one on logits, or does not reduce to a scalar.

    Example:
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.methods import Classifier, Normalize, Supervised
        >>> net = backbones.resnet20()
        >>> model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 10))
        >>> import torch
        >>> from repertoire.data import Batch
        >>> method = Supervised(model, losses.CrossEntropy())
        >>> step = method.step(Batch((torch.rand(4, 3, 32, 32),), torch.tensor([0, 1, 2, 3]), torch.arange(4)))
        >>> step.loss.shape
        torch.Size([])
    """

    needs = Needs(labels="required")

    def __init__(self, model: Classifier, loss: Loss) -> None:
        super().__init__()
        if not isinstance(loss, LogitsLoss):
            raise ConfigError(
                f"method 'supervised' needs a loss on logits, not one on {loss.contract}; use method 'embedding'"
            )
        if isinstance(loss, MultiLabelLoss):
            raise ConfigError(
                f"loss {type(loss).__name__} is for images with several labels each, and these have one: use "
                "cross-entropy, or this loss in a loop of your own"
            )
        if isinstance(loss, RegressionLoss):
            raise ConfigError(
                f"loss {type(loss).__name__} is for a number an image, and these have a class each: use cross-entropy, "
                "hl-gauss or number-token (for classes in order), or this loss in a loop of your own"
            )
        if loss.reduction == "none":
            raise ConfigError("method 'supervised' minimises one number: reduction must be 'mean' or 'sum', not 'none'")
        self.model = model
        self.loss = loss

    def objective(self, features: Tensor, batch: Batch) -> Step:
        outputs = self.model.head.outputs(features, batch.targets)
        loss = sum(weight * self.loss(logits, batch.targets) for weight, logits in outputs)
        accuracy = (outputs[0][1].detach().argmax(1) == batch.targets).float().mean()
        return Step(loss, {"loss": loss.detach(), "accuracy": accuracy})
