"""Experience replay: each step also learns from remembered samples of earlier stages."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from repertoire.data import Batch
from repertoire.losses import Loss
from repertoire.methods._base import REPLAY, Needs, Step, Stream
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._mix import Mix
from repertoire.ranges import Positive
from repertoire.registry import register

__all__ = ["Replay"]


@register("methods", "replay")
class Replay(Classifying):
    r"""Experience replay: new samples and remembered ones of earlier stages are learned together.

    Chaudhry et al., *On Tiny Episodic Memories in Continual Learning* (2019). A step takes a batch of new samples and
    one of as many samples from a small memory, and minimises the mean loss over both:

    .. math:: \ell = \frac{1}{|B| + |M|} \sum_{(x, y) \in B \cup M} \ell\bigl(f(x), y\bigr)

    What is remembered is the affair of whoever goes through the stages
    (:class:`repertoire.protocols.Memory`, :func:`repertoire.protocols.follow`): the method gets it as the stream
    "replay". Without one, in the first stage and in ordinary training, it is supervised training.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits.
        ratio: remembered samples for each new one, above 0; 1 as in the paper.
        mix: what becomes of the samples, new and remembered ones together: "none" (default), "mixup" or "cutmix".
        alpha: of the Beta distribution of the mixing, positive.

    Raises:
        ConfigError: an option out of range; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, Replay
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = Replay(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 4)),
        ...                 losses.CrossEntropy())
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([2, 2, 3, 3]), torch.arange(4))
        >>> batch.streams = {"replay": Batch((torch.rand(2, 1, 4, 4),), torch.tensor([0, 1]), torch.arange(2))}
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'loss']
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes"}),
        streams={REPLAY: Stream(optional=True, labels=True)},
        step="whole",
    )

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        ratio: Annotated[float, Positive] = 1.0,
        mix: Mix = "none",
        alpha: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__(model, loss, mix, alpha)
        stream = replace(self.needs.streams[REPLAY], per_sample=ratio)
        # The mixing is drawn once for new and remembered samples, which come together in the step.
        per_sample = self.needs.per_sample and mix == "none"
        self.needs = replace(self.needs, streams={REPLAY: stream}, per_sample=per_sample)

    def step(self, batch: Batch) -> Step:
        if REPLAY in batch.streams:
            batch = batch.join(batch.streams[REPLAY])
        batch = self.transform(batch)
        return self.classify(self.model.embed(batch.images), batch.targets)
