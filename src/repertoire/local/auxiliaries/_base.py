"""The contract of auxiliary networks: what trains a block that cannot see the loss of the whole network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.local._units import Unit
from repertoire.methods import Step, apply_loss, on_features, own_state, read_scores, right_answers
from repertoire.registry import register
from repertoire.rules import called

__all__ = ["Auxiliary", "LinearReadout", "LocalLoss", "Site", "averaged", "judged", "pooled"]

LocalLoss = Callable[..., Tensor]
"""A loss of Repertoire, or anything that is called with logits and labels."""


@dataclass(frozen=True)
class Site:
    """The place of an auxiliary network in the network that it trains.

    Attributes:
        index, count: which block it trains, from 0, and how many blocks there are.
        unit: number of the block's last unit, from 0.
        units: how many units the network has.
        shape: of the block's output, without the batch: (C, h, w), tokens (T, C), or vectors (C,).
        maps: the block's output as maps `[N, C, h, w]`.
        following: the units after the block, whose modules belong to the network: copy them before using them.
        image: shape of the network's input, without the batch.
        classes: number of classes.
        own: the units of the block, whose modules belong to the network.
    """

    index: int
    count: int
    unit: int
    units: int
    shape: tuple[int, ...]
    maps: Callable[[Tensor], Tensor]
    following: tuple[Unit, ...]
    image: tuple[int, ...]
    classes: int
    own: tuple[Unit, ...] = ()

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of the block's output as maps, (C, h, w), or (C,) where it has no grid."""
        with torch.no_grad():
            return tuple(self.maps(torch.zeros(1, *self.shape)).shape[1:])


class Auxiliary(nn.Module):
    """Turns a block's output into features and class scores, and gives the block its loss.

    A subclass has `embed`, calls `Auxiliary.__init__(site, width)` with the width of what `embed` gives, and may add
    terms to `objective`. It is used in training only, save as an exit (`forward`), and is not exported.

    Args:
        site: where the network stands.
        width: d, width of the features.
        classifier: turns features `[N, d]` into logits `[N, K]`; a linear layer if None.

    Attributes:
        per_sample: whether its loss of a batch is the mean of the losses of its samples, as in
            `repertoire.methods.Needs`; that of the loss it is given aside.
        looks_at_images: whether its objective needs the network's input, `batch.views`, which a pipeline then sends on.
    """

    per_sample: bool = True
    looks_at_images: bool = False
    classifier: nn.Module

    def __init__(self, site: Site, width: int, classifier: nn.Module | None = None) -> None:
        super().__init__()
        self.width = width
        self.classifier = nn.Linear(width, site.classes) if classifier is None else classifier

    def embed(self, x: Tensor) -> Tensor:
        """Features `[N, d]` of the block's output."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[N, K]` of the block's output: the answer, if the network were to end here."""
        return self.classifier(self.embed(x))

    def check_loss(self, loss: LocalLoss) -> None:
        """Refuses a loss that this network cannot train a block with.

        Raises:
            ConfigError: names both; by default for a loss with a memory, or with parameters of one width, which blocks
                of several widths cannot share.
        """
        bound = own_state(loss)
        if bound:
            name = called("auxiliaries", self)
            raise ConfigError(
                f"auxiliary network {name} cannot train a block with the loss {type(loss).__name__}, which {bound}: "
                "every block has other features. Use rule backprop, or a loss without memory, such as supcon"
            )

    def objective(self, x: Tensor, batch: Batch, loss: LocalLoss) -> Step:
        """The loss that the block and this network minimise, and its logs.

        A loss on logits sees the class scores. One on embeddings or on views sees the features, and the class scores
        are then learnt from detached features, so that there is an exit in any case.

        Args:
            x: the block's output, for all views one after the other, with a graph that ends at the block's input.
            batch: targets, and the network's input.
            loss: see `LocalLoss`.
        """
        return judged(self.classifier, self.embed(x), batch, loss)

    @property
    def followed(self) -> tuple[nn.Module, ...]:
        """The modules of later blocks whose weights `follow` reads; a process that trains the block must hold them."""
        return ()

    def follow(self) -> None:
        """Called when all weights have changed. Does nothing by default."""


def judged(classifier: nn.Module, features: Tensor, batch: Batch, loss: LocalLoss) -> Step:
    """The loss of features `[V * N, d]`, whatever its contract, and the metrics of the class scores to log."""
    targets = batch.targets.repeat(len(batch.views), *[1] * (batch.targets.dim() - 1))
    if on_features(loss):
        value = apply_loss(loss, features, batch)
        readout, logs = read_scores([(1.0, classifier(features.detach()))], targets)
        return Step(value + readout, {"loss": value.detach(), "accuracy": logs["accuracy"]})
    scores = classifier(features)
    value = apply_loss(loss, scores, batch)
    return Step(value, {"loss": value.detach(), **right_answers(loss, scores, targets)})


def pooled(x: Tensor) -> Tensor:
    """Maps `[N, C, h, w]` averaged over the grid; vectors as they are."""
    # Over two dimensions at once: to flatten maps that are channels last costs a copy, forwards and backwards.
    return x.mean((2, 3)) if x.dim() == 4 else x.flatten(2).mean(2) if x.dim() > 2 else x


def averaged(x: Tensor, side: tuple[int, int]) -> Tensor:
    """Maps averaged down to a side; with the plain kernel, which is the faster one, where it divides."""
    height, width = x.shape[2:]
    if height % side[0] == 0 and width % side[1] == 0:
        return F.avg_pool2d(x, (height // side[0], width // side[1]))
    return F.adaptive_avg_pool2d(x, side)


@register("auxiliaries", "linear")
class LinearReadout(Auxiliary):
    """A linear classifier on the average of the block's maps: the least that an auxiliary network can be.

    Cheap, and short-sighted: a block that makes its own output linearly separable throws away what later blocks would
    have needed. It is the baseline of the papers on local learning.

    Args:
        site: where the network stands.

    Example:
        >>> from repertoire.local import LocalLearning
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> learner = LocalLearning(net, blocks=2, auxiliary="linear", example=torch.zeros(2, 4),
        ...                         optimizer=lambda block: torch.optim.SGD(block.parameters(), lr=0.1))
        >>> sorted(learner.step(torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])))
        ['accuracy', 'block1_accuracy', 'block1_loss', 'loss']
    """

    def __init__(self, site: Site) -> None:
        super().__init__(site, site.grid[0])
        self._maps = site.maps

    def embed(self, x: Tensor) -> Tensor:
        return pooled(self._maps(x))
