"""A goodness rule of the forward-forward kind, for labelled images and one forward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.local.auxiliaries._base import Auxiliary, LocalLoss, Site, judged
from repertoire.losses import EmbeddingLoss, ViewsLoss
from repertoire.methods import Step
from repertoire.registry import register
from repertoire.rules import called

__all__ = ["Goodness"]


@register("auxiliaries", "goodness")
class Goodness(Auxiliary):
    r"""The block's own channels compete for the class, by their mean square: hardly an auxiliary network at all.

    Hinton, *The Forward-Forward Algorithm* (2022), trains a layer to have a large sum of squares, its goodness, for
    right pairs of image and label and a small one for wrong pairs, which takes a second pass with wrong labels.
    Papachristodoulou, Kyrkou, Timotheou and Theocharides, *Convolutional Channel-wise Competitive Learning for the
    Forward-Forward Algorithm* (AAAI 2024), need one pass and no wrong pairs, which is what is built here: the C
    channels are divided among the K classes, and with :math:`S_k` those of class k and P the pixels

    .. math:: G_k(x) = \frac{1}{|S_k|\,P} \sum_{c \in S_k} \sum_p z_{c,p}^2, \qquad
        \mathcal L = -\log \frac{\exp G_y}{\sum_k \exp G_k}

    with z the normalised output. The goodnesses are the class scores of the exit, so that any other loss on logits can
    take the place of the cross-entropy. Normalisation is a batch normalisation with a gain for each channel, as in the
    released code; tokens and vectors have one pixel a token, and one.

    The paper builds networks for this, with grouped convolutions and widths that are multiples of K. Here K need not
    divide C, and some classes then have a channel more than others; a block with fewer channels than classes gets a
    1x1 convolution to K channels.

    A loss on embeddings knows nothing of goodness: cross-entropy then takes its place in these blocks.

    Args:
        site: where the network stands.

    Raises:
        ConfigError: the method's loss is one on views and uses no labels.

    Example:
        >>> import torch
        >>> from repertoire.local import LocalLearning
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 9), torch.nn.ReLU(), torch.nn.Linear(9, 3))
        >>> learner = LocalLearning(net, blocks=2, auxiliary="goodness", example=torch.zeros(2, 4),
        ...                         optimizer=lambda block: torch.optim.SGD(block.parameters(), lr=0.1))
        >>> learner.auxiliaries[0].classifier.groups.tolist()
        [0, 0, 0, 1, 1, 1, 2, 2, 2]
    """

    def __init__(self, site: Site) -> None:
        channels, *grid = site.grid
        width = max(channels, site.classes)
        super().__init__(site, width, _GroupMeans(width, site.classes))
        self._maps = site.maps
        self.spread: nn.Module = nn.Identity()
        if width > channels:
            self.spread = nn.Conv2d(channels, width, 1, bias=False) if grid else nn.Linear(channels, width, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(width) if grid else nn.BatchNorm1d(width)

    def embed(self, x: Tensor) -> Tensor:
        """Mean square of each channel, `[N, C]`."""
        z = self.norm(self.spread(self._maps(x)))
        squares = z.to(torch.promote_types(z.dtype, torch.float32)).square()
        return squares.mean((2, 3)) if squares.dim() == 4 else squares

    def check_loss(self, loss: LocalLoss) -> None:
        if isinstance(loss, ViewsLoss):
            name = called("auxiliaries", self)
            raise ConfigError(
                f"auxiliary network {name} learns from labels, and the loss {type(loss).__name__} compares views "
                "without any: use auxiliary=conv or auxiliary=auglocal"
            )

    def objective(self, x: Tensor, batch: Batch, loss: LocalLoss) -> Step:
        if isinstance(loss, EmbeddingLoss):
            loss = _labelled_cross_entropy
        return judged(self.classifier, self.embed(x), batch, loss)


class _GroupMeans(nn.Module):
    """The mean over each class's channels: channel c belongs to class floor(c K / C)."""

    groups: Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        # Not stored: it follows from the two numbers.
        self.register_buffer("groups", torch.arange(channels) * classes // channels, persistent=False)

    def forward(self, squares: Tensor) -> Tensor:
        share = F.one_hot(self.groups, self.classes).to(squares.dtype)
        return squares @ (share / share.sum(0))


def _labelled_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the samples that have a label; zero where none has."""
    total = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    return total / (targets >= 0).sum().clamp_min(1)
