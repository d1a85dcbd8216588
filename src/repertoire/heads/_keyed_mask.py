"""A linear head with a learned mask over classes, which the nearest of a few keys decides on."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from repertoire.heads._base import Head, cosines
from repertoire.ops import Memory
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["KeyedMask"]


class _Usage(Memory):
    """How many training samples each key has had."""

    remembers: ClassVar = {"rows": "rows"}
    counts: Tensor

    def __init__(self, keys: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(keys))

    def commit(self, rows: Tensor) -> None:
        self.counts += rows.sum(0).to(self.counts.dtype)


@register("heads", "keyed-mask", paper="si-blurry-mvp")
class KeyedMask(Head):
    r"""A linear head whose logits are masked, and whose features are shifted, as the nearest of a few keys says.

    The part of MVP (Moon et al., *Online Class Incremental Learning on Stochastic Blurry Task Boundary via Mask and
    Visual Prompt Tuning*, 2023) that looks at features. Each of P prompts has a key :math:`e_p`, and :math:`n_p`
    training samples have been given to it so far. With features z, the weights w and b, and :math:`\sigma` the sigmoid:

    .. math:: p(z) = \arg\min_p\, (n_p + 1) \bigl(1 - \cos(z, e_p)\bigr), \qquad
        f_c = 2\,\sigma(m_{c\,p(z)}) \bigl(w_c \cdot (z + s_{p(z)}) + b_c\bigr)

    A prompt that is used often becomes more distant, so that all of them come to be used. A mask of 2 leaves twice the
    logit of a class, and one of 0 nothing of it: each kind of sample has the classes that it may be.

    The paper's prompts are tokens in the layers of a frozen transformer. Here a prompt is the shift s of the features,
    so that any frozen network will do, or features alone. Keys are a buffer: method `mvp` trains them, with other
    methods they stay as they were drawn.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: width of the logits.
        prompts: P, 1 or more; 10 in the paper.

    Attributes:
        mask: parameter `[num_classes, P]`, m; -1 at the beginning, as in the released code.
        shift: parameter `[P, d]`, s; zero at the beginning.
        keys: buffer `[P, d]`, e.
        usage: has `counts`, n.

    Shapes:
        features float `[N, d]` to logits `[N, num_classes]`.

    Raises:
        ConfigError: an option out of range.

    Example:
        >>> import torch
        >>> from repertoire.heads import KeyedMask
        >>> head, z = KeyedMask(8, 3, prompts=4), torch.randn(5, 8)
        >>> head(z).shape, head.nearest(z).shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    per_class = ("linear.weight", "linear.bias", "mask")

    keys: Tensor

    def __init__(self, in_features: int, num_classes: int, prompts: Annotated[int, AtLeast(1)] = 10) -> None:
        super().__init__(in_features, num_classes)
        self.linear = nn.Linear(in_features, num_classes)
        self.mask = nn.Parameter(torch.full((num_classes, prompts), -1.0))
        self.shift = nn.Parameter(torch.zeros(prompts, in_features))
        self.register_buffer("keys", torch.randn(prompts, in_features))
        self.usage = _Usage(prompts)

    def _add(self, added: int) -> None:
        super()._add(added)
        with torch.no_grad():
            self.mask[-added:] = -1.0

    def distances(self, features: Tensor, keys: Tensor | None = None) -> Tensor:
        """1 - cos of features and keys, `[N, P]`; the head's own keys if None."""
        return 1 - cosines(features.detach(), self.keys if keys is None else keys)

    def nearest(self, features: Tensor) -> Tensor:
        """The prompt of each sample, int64 `[N]`."""
        return self._scaled(features).argmin(1)

    @torch.no_grad()
    def _scaled(self, features: Tensor) -> Tensor:
        return (self.usage.counts + 1) * self.distances(features)

    def prompted(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shifted features `[N, d]`, masks `[N, num_classes]` in (0, 2), and the prompts int64 `[N]` that they are of;
        in training, these are counted once the weights have changed."""
        self.check_features(features)
        scaled = self._scaled(features)
        chosen = scaled.argmin(1)
        # What is not finite has no nearest key, and says so to whoever counts.
        rows = (chosen[:, None] == torch.arange(scaled.shape[1], device=chosen.device)) + 0 * scaled
        self.usage.remember(len(rows), rows=rows)
        return features + self.shift[chosen].to(features.dtype), 2 * self.mask.T[chosen].sigmoid(), chosen

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits `[N, num_classes]`; targets are not looked at."""
        shifted, mask, _ = self.prompted(features)
        return self.linear(shifted) * mask
