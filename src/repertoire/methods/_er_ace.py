"""Replay with asymmetric cross-entropy: new classes do not push the old ones away."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from repertoire.data import Batch
from repertoire.losses import Loss
from repertoire.methods._apply import right_answers
from repertoire.methods._base import REPLAY, Needs, Step, Stream
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.ranges import Positive
from repertoire.registry import register

__all__ = ["ERACE"]


@register("methods", "er-ace")
class ERACE(Classifying):
    r"""ER-ACE: replay in which new samples compete among the classes of their batch, and remembered ones among all.

    Caccia et al., *New Insights on Reducing Abrupt Representation Change in Online Continual Learning* (2022). When new
    classes come, the features of old ones are pushed out of their way by the cross-entropy of the new samples. So these
    are asked only which of the classes in their batch they are, and the memory, which has them all, which of all:

    .. math:: \ell = \frac{1}{|B|} \sum_{(x, y) \in B} \ell\bigl(f(x)_{C(B)}, y\bigr)
              + \frac{1}{|M|} \sum_{(x, y) \in M} \ell\bigl(f(x), y\bigr)

    where C(B) are the classes that occur in the batch B. The authors' code also lets classes compete that have never
    been seen so far; here there are none before their stage. Without a memory, in the first stage and in ordinary
    training, only the first sum is there.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits; with weights for each class it cannot be used.
        ratio: remembered samples for each new one, above 0; 1 as in the paper.

    Raises:
        ConfigError: an option out of range; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import ERACE, Classifier, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 4))
        >>> method = ERACE(model, losses.CrossEntropy())
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([2, 2, 3, 3]), torch.arange(4))
        >>> batch.streams = {"replay": Batch((torch.rand(2, 1, 4, 4),), torch.tensor([0, 1]), torch.arange(2))}
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'loss', 'memory_loss']
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes"}),
        streams={REPLAY: Stream(optional=True, labels=True)},
        step="whole",
        per_sample=False,
        within_rank=True,
    )

    def __init__(self, model: Classifier, loss: Loss, ratio: Annotated[float, Positive] = 1.0) -> None:
        super().__init__(model, loss)
        self.needs = replace(self.needs, streams={REPLAY: replace(self.needs.streams[REPLAY], per_sample=ratio)})

    def step(self, batch: Batch) -> Step:
        memory = batch.streams.get(REPLAY)
        # One pass, so that batch normalisation sees new and remembered samples together.
        images = batch.images if memory is None else torch.cat([batch.images, memory.images])
        new, old = self.model.embed(images).tensor_split([len(batch)])
        step = self._among_those_of_the_batch(new, batch.targets.long())
        if memory is None:
            return step
        remembered = self.classify(old, memory.targets)
        loss = step.loss + remembered.loss
        return Step(loss, {**step.logs, "loss": loss.detach(), "memory_loss": remembered.loss.detach()})

    def _among_those_of_the_batch(self, features: Tensor, targets: Tensor) -> Step:
        if not len(targets):
            return self.classify(features, targets)
        present, places = targets.unique(return_inverse=True)
        outputs = [(weight, logits[:, present]) for weight, logits in self.model.head.outputs(features, targets)]
        loss = torch.stack([weight * self.loss(logits, places) for weight, logits in outputs]).sum()
        return Step(loss, {"loss": loss.detach(), **right_answers(self.loss, outputs[0][1], places)})
