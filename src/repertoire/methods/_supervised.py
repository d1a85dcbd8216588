"""Supervised training with a loss on logits."""

from __future__ import annotations

from torch import Tensor

from repertoire.data import Batch
from repertoire.methods._base import Needs, Step
from repertoire.methods._classifying import Classifying
from repertoire.registry import register

__all__ = ["Supervised"]


@register("methods", "supervised")
class Supervised(Classifying):
    r"""Trains a network end to end on labelled samples.

    The loss of a batch is :math:`\sum_m c_m\,\ell(h_m(f(x)), y)`, where f is the backbone and the head h gives one pair
    of weight and logits, or several if it trains nested classifiers. What targets are is the loss's affair: a class,
    several labels, numbers; with a head that gives logits of every pixel (`Head.dense`), a class for each of them.

    With `mix`, the samples of a batch are mixed with each other first (:func:`repertoire.methods.mixup`,
    :func:`repertoire.methods.cutmix`), and the loss must take soft targets; the logged accuracy is then that on mixed
    samples, of the class with the larger share.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits.
        mix: "none" (default), "mixup" or "cutmix".
        alpha: of the Beta distribution of the mixing, positive; 1 by default.

    Raises:
        ConfigError: the loss is not one on logits, or does not reduce to a scalar; a loss without soft targets is
            to get mixed ones; or an option out of range.

    Example:
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.methods import Classifier, Normalize, Supervised
        >>> net = backbones.resnet20()
        >>> model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 10))
        >>> import torch
        >>> from repertoire.data import Batch
        >>> method = Supervised(model, losses.CrossEntropy(), mix="mixup")
        >>> step = method.step(Batch((torch.rand(4, 3, 32, 32),), torch.tensor([0, 1, 2, 3]), torch.arange(4)))
        >>> step.loss.shape
        torch.Size([])
    """

    needs = Needs(labels="required", dense=True)

    def objective(self, features: Tensor, batch: Batch) -> Step:
        return self.classify(features, batch.targets)
