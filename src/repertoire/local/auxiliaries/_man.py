"""Auxiliary networks that begin with a moving average of the next block's first layer."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from repertoire import registry
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.local.auxiliaries._auglocal import redraw
from repertoire.local.auxiliaries._base import Auxiliary, LocalLoss, Site
from repertoire.methods import Step
from repertoire.registry import register

__all__ = ["MAN"]


@register("auxiliaries", "man", paper="man")
class MAN(Auxiliary):
    r"""A moving average of the next block's first unit, and a trained copy, in front of another auxiliary network.

    Su et al., *Momentum Auxiliary Network for Supervised Local Learning* (ECCV 2024). A block cannot receive gradients
    from those after it, but it may know their weights. With :math:`g` the next block's first unit and :math:`\theta`
    its weights, the block's output x is read through

    .. math:: y = g_{\bar\theta}(x) + g_\beta(x), \qquad \bar\theta \leftarrow m\,\bar\theta + (1 - m)\,\theta

    by the auxiliary network `base`. The average is updated after every step and is not trained; gradients pass through
    it to the block. The "learnable bias" :math:`\beta` makes up for what the averaged unit does not expect in the
    features of this block; it is trained with the auxiliary network. What it is made of is taken from the released
    code: weights of its own for a copy of the same unit.

    MAN++ (Su et al., *MAN++: Scaling Momentum Auxiliary Network for Supervised Local Learning in Vision Tasks*, 2025)
    is `scale`: the unit of another block expects other features than those of this one, and a number s for each block,
    1 at first and trained with the auxiliary network, shifts the weight from one copy to the other:

    .. math:: y = (2 - s)\, g_{\bar\theta}(x) + s\, g_\beta(x)

    The abstract has a "learnable scaling bias" and no formula; this one is that of the released code.

    In two places the released code of both differs. It updates the average before the optimiser's step rather than
    after it, so that the average is one step late; and it starts the average from random weights, where here it starts
    from the unit's own. Normalisation in the averaged copy works on the batch while training, and has running
    statistics of its own for exits.

    Args:
        site: where the network stands.
        base: spec of the auxiliary network that reads y, in parentheses if it has options: `man:base=(conv:depth=1)`;
            "linear" by default. The paper puts the average in front of DGL, PredSim and InfoPro (`dgl`, `predsim`,
            `infopro`).
        momentum: m, from 0 (the unit's latest weights) to 1 (its first ones); 0.995 by default, as in the commands of
            the released code. None for the learnable bias alone, without an average: what the paper compares with.
        scale: whether the weights of the two copies are learnt, as in MAN++; False by default.

    Attributes:
        average: the averaged copy, whose parameters take no gradient; None without one.
        learnable_bias: the trained copy.
        base: the auxiliary network behind the two.
        share: s, a scalar parameter; None without `scale`.

    Raises:
        ConfigError: the momentum is out of range; there is no average that `scale` could weigh; or there is no unit
            after those that are in use already, as for a `man` whose base is another one.

    Example:
        >>> import torch
        >>> from repertoire.local import LocalLearning
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> learner = LocalLearning(net, blocks=2, auxiliary="man:base=linear", example=torch.zeros(2, 4),
        ...                         optimizer=lambda block: torch.optim.SGD(block.parameters(), lr=0.1))
        >>> logs = learner.step(torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
        >>> average, live = learner.auxiliaries[0].average.weight, net[2].weight
        >>> bool((average - live).abs().max() > 0), average.requires_grad
        (True, False)
    """

    def __init__(self, site: Site, base: str = "linear", momentum: float | None = 0.995, scale: bool = False) -> None:
        if momentum is not None and not 0 <= momentum <= 1:
            raise ConfigError(f"man: momentum is {momentum}; expected a number from 0 to 1, or none")
        if scale and momentum is None:
            raise ConfigError("man: scale weighs the average beside the learnable bias, and momentum=none leaves none")
        if not site.following:
            raise ConfigError(
                f"man: no unit is left to average for the auxiliary network of block {site.index + 1}; cut earlier, or "
                "use another base"
            )
        nn.Module.__init__(self)  # the classifier is the one of the base
        unit = site.following[0]
        behind = replace(
            site, unit=site.unit + 1, shape=unit.shape, following=site.following[1:], own=(*site.own, unit)
        )
        self.base: Auxiliary = registry.build("auxiliaries", base, site=behind)
        self.width = self.base.width
        self.per_sample = self.base.per_sample
        self.looks_at_images = self.base.looks_at_images
        self.momentum = momentum
        self.learnable_bias = redraw(copy.deepcopy(unit.module)).requires_grad_(True)
        self.average = None if momentum is None else copy.deepcopy(unit.module).requires_grad_(False)
        self.share = nn.Parameter(torch.ones(())) if scale else None
        # In a tuple, so that it is not taken for a module of this one: it is neither trained nor stored with it.
        self._unit = (unit.module,)

    @property
    def followed(self) -> tuple[nn.Module, ...]:
        return self.base.followed if self.average is None else (*self._unit, *self.base.followed)

    def _read(self, x: Tensor) -> Tensor:
        y = self.learnable_bias(x)
        if self.average is None:
            return y
        return y + self.average(x) if self.share is None else self.share * y + (2 - self.share) * self.average(x)

    def embed(self, x: Tensor) -> Tensor:
        return self.base.embed(self._read(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(self._read(x))

    def check_loss(self, loss: LocalLoss) -> None:
        self.base.check_loss(loss)

    def objective(self, x: Tensor, batch: Batch, loss: LocalLoss) -> Step:
        return self.base.objective(self._read(x), batch, loss)

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the average towards the unit's weights."""
        if self.average is not None and self.momentum is not None:
            mine: list[Tensor] = list(self.average.parameters())
            theirs: list[Tensor] = list(self._unit[0].parameters())
            torch._foreach_lerp_(mine, theirs, 1 - self.momentum)
        self.base.follow()
