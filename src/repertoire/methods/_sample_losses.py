"""Which samples a network has learned already, by their running losses."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.ops import Memory, otsu_threshold
from repertoire.ranges import AtLeast, Share, checked

__all__ = ["SampleLosses", "rejoined"]


class SampleLosses(Memory):
    r"""The running loss of every unlabelled sample, and which samples a network has learned already.

    Gui, Zhao, Qi, Zhou, Wang and Shi, *Enhancing Sample Utilization through Sample Adaptive Augmentation in
    Semi-Supervised Learning* (SAA, 2023). With the consistency loss of a sample, taken before any threshold of
    confidence, its history is

    .. math:: h_i \leftarrow \alpha h_i + (1 - \alpha)\,\ell_i

    and whenever as many samples were seen as there are, those below Otsu's threshold of all histories
    (:func:`repertoire.ops.otsu_threshold`) are called naive: they have nothing more to teach. The released code has
    :math:`\alpha = 0.001`, so that a history is about the last loss. A sample that was never seen is not naive, and
    has no part in the threshold.

    Everything is in buffers, which move when the weights have: a run that is resumed divides the samples alike.

    Args:
        samples: N, unlabelled samples in all.
        decay: alpha, in [0, 1].

    Attributes:
        losses: float `[N]`, the histories; -1 of samples that were never seen.
        naive: bool `[N]`.
        waiting: int64 `[]`, samples seen since the last division.

    Raises:
        ConfigError: an option out of range.

    Example:
        >>> import torch
        >>> from repertoire.methods import SampleLosses
        >>> history = SampleLosses(samples=3, decay=0.0)
        >>> history.see(torch.arange(3), torch.tensor([0.1, 2.0, 0.2]))
        >>> history.after_update()
        >>> history.naive
        tensor([ True, False,  True])
    """

    losses: Tensor
    naive: Tensor
    waiting: Tensor
    begins_anew = frozenset({"losses", "naive"})
    remembers: ClassVar = {"index": "rows", "losses": "rows"}

    @checked
    def __init__(self, samples: Annotated[int, AtLeast(1)], decay: Annotated[float, Share] = 0.001) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("losses", torch.full((samples,), -1.0))
        self.register_buffer("naive", torch.zeros(samples, dtype=torch.bool))
        self.register_buffer("waiting", torch.zeros((), dtype=torch.int64))

    def see(self, index: Tensor, losses: Tensor) -> None:
        """Keeps losses `[M]` of the samples of these numbers, int64 `[M]`, until the weights have changed."""
        self.remember(len(index), index=index, losses=losses)

    def commit(self, index: Tensor, losses: Tensor) -> None:
        before, losses = self.losses[index], losses.to(self.losses)
        self.losses[index] = torch.where(before < 0, losses, self.decay * before + (1 - self.decay) * losses)
        self.waiting += len(index)
        if int(self.waiting) >= len(self.losses):
            self.waiting.zero_()
            met = self.losses >= 0
            self.naive.copy_(met & (self.losses < otsu_threshold(self.losses[met])))

    def extra_repr(self) -> str:
        return f"samples={len(self.losses)}, decay={self.decay}"


def rejoined(images: Tensor, others: Tensor) -> Tensor:
    """Images of which one half comes from another version of themselves: the more diverse augmentation of SAA.

    The left half or the upper half, at random for each image, as in the released code; from torch's random state.

    Args:
        images, others: two augmentations of the same images, float `[N, C, H, W]`.

    Raises:
        ShapeError: these are no images, or their shapes differ.

    Example:
        >>> import torch
        >>> from repertoire.methods import rejoined
        >>> float(rejoined(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)).mean())
        0.5
    """
    if images.ndim != 4 or images.shape != others.shape:
        raise ShapeError(
            f"halves are joined of images [N, C, H, W] of one shape, found {list(images.shape)} and "
            f"{list(others.shape)}"
        )
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device)[:, None] < height // 2
    columns = torch.arange(width, device=images.device)[None] < width // 2
    across = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    other = torch.where(across, columns.expand(height, width), rows.expand(height, width))
    return torch.where(other, others, images).contiguous(memory_format=torch.channels_last)
