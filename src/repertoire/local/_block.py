"""A gradient-isolated block: some units of the network, and what they minimise."""

from __future__ import annotations

from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.local.auxiliaries._base import Auxiliary, LocalLoss, judged
from repertoire.methods import Method, Step

__all__ = ["LocalBlock", "LocalObjective", "MethodObjective", "TailObjective"]


class LocalObjective(nn.Module):
    """The objective of any block but the last: that of its auxiliary network."""

    def __init__(self, auxiliary: Auxiliary, loss: LocalLoss) -> None:
        super().__init__()
        auxiliary.check_loss(loss)
        self.auxiliary = auxiliary
        self._loss = (loss,)  # not registered: it is shared by all blocks, and the last one owns its parameters

    @property
    def loss(self) -> LocalLoss:
        """The loss, which is no module of this one: all blocks share it."""
        return self._loss[0]

    def forward(self, x: Tensor, batch: Batch) -> Step:
        return self.auxiliary.objective(x, batch, self.loss)


class TailObjective(nn.Module):
    """The objective of the last block of a network that gives class scores: the loss itself."""

    def __init__(self, tail: nn.Module, loss: LocalLoss) -> None:
        super().__init__()
        self.tail = tail
        self.loss = loss

    def forward(self, x: Tensor, batch: Batch) -> Step:
        return judged(nn.Identity(), self.tail(x), batch, self.loss)


class MethodObjective(nn.Module):
    """The objective of the last block of a method's network: the method's own."""

    def __init__(self, method: Method, backbone_parts: nn.ModuleList) -> None:
        super().__init__()
        self._method = (method,)
        self.backbone_parts = backbone_parts
        self.head = method.model.head
        self.others = nn.ModuleDict({n: child for n, child in method.named_children() if n not in ("model", "local")})

    @property
    def loss(self) -> LocalLoss | None:
        """The loss of the method, if it has one apart."""
        return self.method.block_loss

    @property
    def method(self) -> Method:
        """The method, which is no module of this one: its network is divided among the blocks."""
        return self._method[0]

    def forward(self, x: Tensor, batch: Batch) -> Step:
        return self.method.objective(self.method.model.backbone.pool(x), batch)


class LocalBlock(nn.Module):
    """Consecutive units, and the objective that they are trained by.

    Attributes:
        names: of the units.
        output: what the last call made of its input, detached: the input of the next block. It is left here and not
            returned, because wrappers for mixed precision would make a copy of it in float32.
        ahead: the first units of the next block, where its loss is taken behind them.
        entered: how many of its own units the block before has run already.
    """

    output: Tensor | None
    ahead: tuple[nn.Module, ...] = ()
    entered: int = 0

    def __init__(self, units: list[nn.Module], names: list[str], objective: nn.Module) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)
        self.names = names
        self.objective = objective
        self.output = None

    def run(self, x: Tensor) -> Tensor:
        """The block's part of the network's forward pass."""
        for unit in self.units:
            x = unit(x)
        return x

    def look(self, y: Tensor) -> Tensor:
        """What the auxiliary network sees of the block's output."""
        for unit in self.ahead:
            y = unit(y)
        return y

    def forward(self, x: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the block, and its logs."""
        y = self.run(x)
        self.output = y.detach()
        step = self.objective(y, batch)
        return step.loss, step.logs

    def cross(self) -> Tensor | None:
        """Called when the gradient of the loss has come as far as it does by itself: takes it over a border inside the
        block, and gives what the units behind that border are still to get of it. Does nothing by default."""
        return None

    def take(self) -> Tensor:
        """The output, which is not kept."""
        output, self.output = self.output, None
        assert output is not None, "the block was not called"
        return output

    def forget(self) -> None:
        """Drops what a step has left in the block that did not come to its end."""
        self.output = None
