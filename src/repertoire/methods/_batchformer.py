"""BatchFormer: in training, the samples of a batch look at each other."""

from __future__ import annotations

import copy
import math
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import Loss
from repertoire.methods._base import Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.ranges import AtLeast, Share
from repertoire.registry import register

__all__ = ["BatchFormer"]

Across = Literal["batch", "none"]


@register("methods", "batchformer", paper="batchformer")
class BatchFormer(Classifying):
    r"""BatchFormer: a transformer layer across the batch in training, and the same classifier before and after it.

    Hou, Yu and Tao, *BatchFormer: Learning to Explore Sample Relationships for Robust Representation Learning* (2022).
    With the features Z `[N, d]` of a batch, T an encoder layer to which the N samples are one sequence, and a single
    classifier h:

    .. math:: \ell = \tfrac{1}{2}\,\ell\bigl(h(Z), y\bigr) + \tfrac{1}{2}\,\ell\bigl(h(T(Z)), y\bigr)

    the mean over both halves, as in the released code. Frequent samples thereby pass gradients to rare ones; because h
    is shared it also knows features that no other sample has touched, so T is left out when training is over, and
    prediction costs nothing and depends on no other sample. The layer has self-attention, a hidden layer as wide as
    the features and normalisation after each, as in the released code for long tails.

    A batch is not the mean of its pieces, so accumulation is refused. In several processes each has a sequence of its
    own.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits.
        attention_heads: of the layer, 1 or more; the width of the features must be a multiple of it.
        dropout: of the layer, in [0, 1]; 0.5 in the released code.
        layers: how many of them, one after the other; 1 in the paper.
        across: "batch" (default), or "none": each sample is a sequence of its own, for comparison.
        shared: whether both halves have the same classifier; otherwise that of the second half is left out in the end.

    Raises:
        ConfigError: an option out of range; a head for maps; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import BatchFormer, Classifier, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = BatchFormer(model, losses.CrossEntropy())
        >>> sorted(method.step(Batch((torch.rand(4, 1, 4, 4),), torch.tensor([0, 0, 1, 1]), torch.arange(4))).logs)
        ['accuracy', 'batch_loss', 'loss']
    """

    needs = Needs(labels="required", per_sample=False, within_rank=True)

    @classmethod
    def example_options(cls) -> dict[str, Any]:
        """Options for a small example: without what is drawn, so that rules which draw in another order agree."""
        return {"dropout": 0.0}

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        attention_heads: Annotated[int, AtLeast(1)] = 4,
        dropout: Annotated[float, Share] = 0.5,
        layers: Annotated[int, AtLeast(1)] = 1,
        across: Across = "batch",
        shared: bool = True,
    ) -> None:
        super().__init__(model, loss)
        if model.head.dense or model.head.takes_maps:
            raise ConfigError("method 'batchformer' looks at one vector for each sample, and the head wants maps")
        width = model.backbone.out_features
        if width % attention_heads:
            raise ConfigError(
                f"attention_heads is {attention_heads}, of which {width} features are no multiple: use "
                f"attention_heads={math.gcd(width, attention_heads)}"
            )
        self.across = across
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(width, attention_heads, width, dropout, batch_first=True)
                for _ in range(layers)
            )
        )
        self.other = None if shared else copy.deepcopy(model.head)

    def related(self, features: Tensor) -> Tensor:
        """The features `[N, d]` after the layer, each knowing of the others."""
        if not len(features):  # there is nothing to look at
            return features
        if self.across == "batch":
            return self.layers(features[None])[0]
        return self.layers(features[:, None])[:, 0]

    def objective(self, features: Tensor, batch: Batch) -> Step:
        plain = self.classify(features, batch.targets)
        head = self.model.head if self.other is None else self.other
        outputs = head.outputs(self.related(features), batch.targets)
        across = torch.stack([weight * self.loss(logits, batch.targets) for weight, logits in outputs]).sum()
        # Of two halves of one size, the mean over both is the mean of their means.
        half = 0.5 if self.loss.reduction == "mean" else 1.0
        loss = half * (plain.loss + across)
        return Step(loss, {**plain.logs, "loss": loss.detach(), "batch_loss": across.detach()})
