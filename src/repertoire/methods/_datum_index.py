"""DIET: every image is a class of its own, for an ordinary classifier."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.methods._base import Method, Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._precision import at_least_float32
from repertoire.methods._readout import read_out
from repertoire.ops import linear_cross_entropy
from repertoire.ranges import AtLeast, Share
from repertoire.registry import register

__all__ = ["DatumIndex"]


@register("methods", "datum-index", paper="diet")
class DatumIndex(Method):
    r"""DIET: pretraining without labels, pairs, projector or teacher; the class of an image is its number in the data.

    Ibrahim, Klindt and Balestriero, *Occam's Razor for Self Supervised Learning: What is Sufficient to Learn Good
    Representations?* (2024). With a matrix W of a row for each training image, thrown away afterwards:

    .. math:: \ell_i = \mathrm{CE}\bigl(W f(x_i),\; (1 - \epsilon)\,e_i + \epsilon / N\bigr)

    Its loss needs one view and compares no samples, so batches may be small and may be processed in pieces. The logits
    are never made as a whole (:func:`repertoire.ops.linear_cross_entropy`); W has N rows, as many as there are images,
    and so has the optimiser's state.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        samples: N, the number of training images; told by the trainer.
        label_smoothing: epsilon, in [0, 1]; the paper's 0.8 is far more than a classifier gets.

    Raises:
        ConfigError: no samples, or a label smoothing out of range.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, DatumIndex, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = DatumIndex(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2)), samples=9)
        >>> step = method.step(Batch((torch.rand(4, 1, 4, 4),), torch.full((4,), -1), torch.arange(4)))
        >>> sorted(step.logs)
        ['accuracy', 'loss', 'readout_loss']
    """

    needs = Needs(augmentation="simclr")
    begins_anew = frozenset({"indices.weight"})

    def __init__(
        self, model: Classifier, samples: Annotated[int, AtLeast(1)], label_smoothing: Annotated[float, Share] = 0.8
    ) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing
        self.indices = nn.Linear(model.backbone.out_features, samples, bias=False)

    def objective(self, features: Tensor, batch: Batch) -> Step:
        with torch.autocast(features.device.type, enabled=False):
            loss = linear_cross_entropy(
                at_least_float32(features), self.indices.weight, batch.index, label_smoothing=self.label_smoothing
            )
        readout, logs = read_out(self.model.head, features, batch.targets)
        return Step(loss + readout, {"loss": loss.detach(), **logs})
