"""A head that looks features up: the nearest key of each codebook, and what is learned under it."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.heads._base import Head
from repertoire.ops import draw_keys, nearest_keys
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["KeyValueBottleneck"]


@register("heads", "key-value", paper="dkvb")
class KeyValueBottleneck(Head):
    r"""Discrete key-value bottleneck: class scores that are looked up under the nearest keys, and learned there alone.

    Träuble et al., *Discrete Key-Value Bottleneck* (2023). Each of C codebooks projects the features by a matrix
    :math:`P_c` that is drawn once, finds the nearest of its K keys, and fetches the scores that are stored under it:

    .. math::
        f = \frac{1}{C} \sum_c v_{c,\,k_c(z)}, \qquad k_c(z) = \arg\min_k \lVert z P_c - e_{ck} \rVert_2

    Only the values v that are fetched have a gradient, so what one class teaches leaves alone what was learned where no
    sample of it lies. Keys are made of the features of the first training set, without its labels, as in
    :func:`repertoire.ops.draw_keys`, and stay what they are; a head that is shown none has random ones. With an
    optimiser that has momentum or weight decay, values move that were not fetched: `--optimizer sgd` with
    `--momentum 0 --weight-decay 0`, and a large learning rate, keep to the paper.

    The features get no gradient. The network before the head is therefore frozen.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: width of the logits.
        codebooks: C, 1 or more; 256 by default. The more, the less a single key matters.
        keys: K of each codebook, 1 or more; 64 by default, for a few thousand samples.
        width: of the projected features, 1 or more; 8 by default.
        seed: of the projections and of the rows that keys begin at.

    Attributes:
        values: parameter `[num_classes, C, K]`, zero at the beginning.
        keys: buffer `[C, K, width]`, e.
        projection: buffer `[C, d, width]`, P.

    Shapes:
        features float `[N, d]` to logits `[N, num_classes]`, of the dtype of the values.

    Raises:
        ConfigError: an option out of range.

    Example:
        >>> import torch
        >>> from repertoire.heads import KeyValueBottleneck
        >>> head, z = KeyValueBottleneck(8, 3, codebooks=4, keys=5), torch.randn(40, 8)
        >>> head.prepare(z)
        >>> head(z[:2]).sum().backward()
        >>> int((head.values.grad != 0).any(0).sum()) <= 2 * 4  # of 20 keys
        True
    """

    per_class = ("values",)
    zero = True
    passes_gradient = False

    projection: Tensor
    keys: Tensor
    prepared: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        codebooks: Annotated[int, AtLeast(1)] = 256,
        keys: Annotated[int, AtLeast(1)] = 64,
        width: Annotated[int, AtLeast(1)] = 8,
        seed: int = 0,
    ) -> None:
        super().__init__(in_features, num_classes)
        self.seed = seed
        generator = torch.Generator().manual_seed(seed)
        projection = torch.randn(codebooks, in_features, width, generator=generator) * in_features**-0.5
        self.register_buffer("projection", projection)
        self.register_buffer("keys", torch.randn(codebooks, keys, width, generator=generator))
        self.register_buffer("prepared", torch.tensor(False))
        self.values = nn.Parameter(torch.zeros(num_classes, codebooks, keys))

    def project(self, features: Tensor) -> Tensor:
        """What the keys are compared with, `[N, C, width]`, in float32 or better."""
        with torch.autocast(features.device.type, enabled=False):
            wide = torch.promote_types(torch.promote_types(features.dtype, self.projection.dtype), torch.float32)
            return torch.einsum("nd,cdm->ncm", features.detach().to(wide), self.projection.to(wide))

    @torch.no_grad()
    def prepare(self, features: Tensor) -> None:
        """Makes the keys of features float `[N, d]`, unless they have been made."""
        if bool(self.prepared):
            return
        self.check_features(features)
        generator = torch.Generator().manual_seed(self.seed)
        self.keys.copy_(draw_keys(self.project(features), self.keys.shape[1], generator=generator))
        self.prepared.fill_(True)

    def fetched(self, features: Tensor) -> Tensor:
        """Position of the nearest key of each codebook, int64 `[N, C]`."""
        return nearest_keys(self.project(features), self.keys)

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits `[N, num_classes]` of features `[N, d]`; targets are not looked at."""
        self.check_features(features)
        index = self.fetched(features)
        books = torch.arange(index.shape[1], device=index.device)
        return self.values.permute(1, 2, 0)[books, index].mean(1)
