"""MVP: prompts by keys, masks over classes, and weights for what is about to be overlooked."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.heads import KeyedMask
from repertoire.methods._base import REPLAY, Method, Needs, Step, Stream
from repertoire.methods._classifier import Classifier
from repertoire.methods._precision import at_least_float32
from repertoire.ranges import AtLeast, Positive, Share
from repertoire.registry import register

__all__ = ["MVP"]


@register("methods", "mvp", paper="si-blurry-mvp")
class MVP(Method):
    r"""MVP: learns a stream without neat stages, by prompts, masks over classes, and weights for overlooked samples.

    Moon et al., *Online Class Incremental Learning on Stochastic Blurry Task Boundary via Mask and Visual Prompt
    Tuning* (2023). The head (:class:`repertoire.heads.KeyedMask`) has a prompt, a mask and a key p for each kind of
    sample that it comes to tell apart. Four parts act together:

    - *Masks*: the logits are those of the head, which the nearest key has masked.
    - *Keys* are drawn to the samples that they get, and away from each other, less so the more a key is used. With
      :math:`d_i` the cosine distance of sample i from its key, :math:`D` those between keys and :math:`n` their counts:

      .. math:: \ell_\mathrm{key} = \log \Bigl(1 + \frac{\operatorname{mean}_i \exp(d_i / (n_{p_i} + 1))}
          {\operatorname{mean}_{i,q} \exp(D_{p_i q} / (n_{p_i} + 1))}\Bigr)

    - *Overlooked samples* count more: those whose gradient points elsewhere than that of the batch. For the row of its
      class in the head, whose features are z and whose answers are f, both are known in closed form,
      :math:`g_i = (f_{iy} - 1)\,\mu_{iy}\,z_i` and
      :math:`\bar g_c = \frac{1}{B} \sum_j (f_{jc} - [y_j = c])\,\mu_{jc}\,z_j`, with :math:`\mu` the mask, so that
      samples need no backward pass of their own as in the released code. The weight of a sample is
      :math:`1 - \alpha + \alpha\,(1 - \cos(g_i, \bar g_{y_i}))^\gamma`.
    - *Features are scaled* before the loss by :math:`1 / (1 - \cos(w_y, z) + \tau)`: those that their class vector does
      not fit yet are made smaller, so that their loss and its gradient stay large.

    What the paper prompts is a frozen transformer, by tokens in its layers. Here any network will do, a prompt is a
    shift of its features, and the user decides what is frozen (`--tune head`, or features instead of images).
    Remembered samples, where there are any, are part of the batch.

    Args:
        model: normalisation, backbone, and a head `keyed-mask` with as many prompts.
        prompts: P, 1 or more.
        alpha: share of the weights that depends on gradients, in [0, 1].
        gamma: exponent of what the gradient says, 0 or more.
        margin: tau, positive; None leaves features as they are.
        keys: weight of the loss of the keys, 0 or more.
        ratio: remembered samples for each new one, above 0.

    Raises:
        ConfigError: an option out of range, or a head of another kind.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import MVP, Classifier, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.KeyedMask(net.out_features, 2, prompts=3))
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> sorted(MVP(model, prompts=3).step(batch).logs)
        ['accuracy', 'key_loss', 'loss', 'overlooked']
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes"}),
        streams={REPLAY: Stream(optional=True, labels=True)},
        step="whole",
        # A sample is compared with the gradient of its batch.
        per_sample=False,
        within_rank=True,
        head="keyed-mask:prompts={prompts}",
    )

    def __init__(
        self,
        model: Classifier,
        prompts: Annotated[int, AtLeast(1)] = 10,
        alpha: Annotated[float, Share] = 0.5,
        gamma: Annotated[float, AtLeast(0)] = 2.0,
        margin: Annotated[float, Positive] | None = 0.5,
        keys: Annotated[float, AtLeast(0)] = 1.0,
        ratio: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__()
        head = model.head
        if not isinstance(head, KeyedMask) or len(head.keys) != prompts:
            found = f"keyed-mask:prompts={len(head.keys)}" if isinstance(head, KeyedMask) else type(head).__name__
            raise ConfigError(
                f"method 'mvp' trains head keyed-mask:prompts={prompts}, and this is {found}: leave the head out"
            )
        self.model = model
        self.alpha, self.gamma, self.margin, self.weight = alpha, gamma, margin, keys
        self.needs = replace(self.needs, streams={REPLAY: replace(self.needs.streams[REPLAY], per_sample=ratio)})
        self.keys = nn.Parameter(head.keys.detach().clone())

    @property
    def head(self) -> KeyedMask:
        """The head of the model."""
        head = self.model.head
        assert isinstance(head, KeyedMask)
        return head

    def step(self, batch: Batch) -> Step:
        if REPLAY in batch.streams:
            batch = batch.join(batch.streams[REPLAY])
        head, targets = self.head, batch.targets.long()
        features = self.model.embed(batch.images)
        z, mask, chosen = head.prompted(features)
        plain = at_least_float32(head.linear(z) * mask)
        overlooked = _overlooked(z.detach(), mask.detach(), plain.detach(), targets)
        logits = plain
        if self.margin is not None:
            logits = at_least_float32(head.linear(z * self._scale(z.detach(), targets)[:, None]) * mask)
        each = F.cross_entropy(logits, targets, reduction="none")
        weights = (1 - self.alpha) + self.alpha * overlooked**self.gamma
        loss = (weights * each).sum() / max(1, len(each))
        apart = self._key_loss(features, chosen)
        right = (plain.detach().argmax(1) == targets).float().sum() / max(1, len(targets))
        logs = {"key_loss": apart.detach(), "accuracy": right}
        logs["overlooked"] = overlooked.sum() / max(1, len(overlooked))
        loss = loss + self.weight * apart
        return Step(loss, {"loss": loss.detach(), **logs})

    def _scale(self, z: Tensor, targets: Tensor) -> Tensor:
        """What features are multiplied by, `[N]`."""
        assert self.margin is not None
        rows = self.head.linear.weight.detach()[targets]
        cosine = F.cosine_similarity(at_least_float32(rows), at_least_float32(z), dim=1)
        return (1 / (1 - cosine + self.margin)).to(z.dtype)

    def _key_loss(self, features: Tensor, chosen: Tensor) -> Tensor:
        head = self.head
        mass = (head.usage.counts + 1)[chosen, None]
        own = head.distances(features, self.keys).gather(1, chosen[:, None])
        unit = F.normalize(at_least_float32(self.keys), dim=1)
        others = (1 - unit @ unit.T)[chosen]
        count = max(1, len(chosen))
        pull = (own / mass).exp().sum() / count
        # At least 1, as no distance is below 0; of an empty batch as well.
        push = ((others / mass).exp().sum() / (count * len(unit))).clamp_min(1)
        return (pull / push).log1p()

    @torch.no_grad()
    def after_update(self) -> None:
        super().after_update()
        self.head.keys.copy_(self.keys)


def _overlooked(z: Tensor, mask: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """1 - cos of the gradients of a sample and of its batch, for the row of its class in the head, `[N]`.

    Args:
        z: what the head's weights are multiplied with, `[N, d]`.
        mask: factors of the logits `[N, C]`.
        logits: with the mask, `[N, C]`.
        targets: int64 `[N]`.
    """
    z = at_least_float32(z)
    wrong = (logits.softmax(1) - F.one_hot(targets, logits.shape[1])) * mask
    own = wrong.gather(1, targets[:, None]) * z
    whole = (wrong.T @ z) / max(1, len(z))
    return 1 - F.cosine_similarity(own, whole[targets], dim=1)
