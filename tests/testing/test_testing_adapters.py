"""Each check of an adapter finds what it is there for."""

from __future__ import annotations

import pytest
import torch
from broken import every_check_is_tried, failing
from torch import Tensor, nn

from repertoire.adapters import Adapter, Change
from repertoire.testing import check_adapter


class Shift(Change):
    """Adds a number to each row of a weight."""

    def __init__(self, weight: Tensor, start: float = 0.0) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.full_like(weight[:, :1].flatten(1)[:, 0], start))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.shift.view(-1, *[1] * (weight.ndim - 1))


class Rows(Adapter):
    """A number more in each row of a weight."""

    def change(self, weight: Tensor) -> Change:
        return Shift(weight)


class Undocumented(Adapter):
    def __init__(self, rate=1.0):
        self.rate = rate

    def change(self, weight):
        return Shift(weight)


class Hasty(Adapter):
    """A number more in each row of a weight, which is not zero at first."""

    def change(self, weight: Tensor) -> Change:
        return Shift(weight, 0.5)


class Full(Adapter):
    """A number more in each place of a weight: as many as there are."""

    class Everything(Change):
        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.more = nn.Parameter(torch.zeros_like(weight))
            self.never = nn.Parameter(torch.zeros(weight.numel()))

        def forward(self, weight: Tensor) -> Tensor:
            return weight + self.more

    def change(self, weight: Tensor) -> Change:
        return self.Everything(weight)


class Deaf(Adapter):
    """A number more in each row of a weight, in the wrong direction."""

    class Turned(Shift):
        def forward(self, weight: Tensor) -> Tensor:
            more = self.shift.view(-1, *[1] * (weight.ndim - 1))
            return weight - more + 2 * more.detach()

    def change(self, weight: Tensor) -> Change:
        return self.Turned(weight)


class Still(Adapter):
    """Numbers that change nothing."""

    class Nothing(Shift):
        def forward(self, weight: Tensor) -> Tensor:
            return weight + 0 * super().forward(weight)

    def change(self, weight: Tensor) -> Change:
        return self.Nothing(weight)


class Moody(Adapter):
    """A number more in each row of a weight, times one that is drawn when it is attached."""

    class Scaled(Shift):
        def __init__(self, weight: Tensor) -> None:
            super().__init__(weight)
            self.scale = float(torch.rand(()))

        def forward(self, weight: Tensor) -> Tensor:
            return weight + self.scale * (super().forward(weight) - weight)

    def change(self, weight: Tensor) -> Change:
        return self.Scaled(weight)


class Forgetful(Adapter):
    """A number more in each row of a weight, which the state does not have."""

    class Hidden(Shift):
        def state_dict(self, *args, **kwargs):
            return {}

    def change(self, weight: Tensor) -> Change:
        return self.Hidden(weight)


class Single(Adapter):
    """A number more in each row of a weight, in single precision."""

    def change(self, weight: Tensor) -> Change:
        return Shift(weight.float())


class Foreign(Adapter):
    """A number more in each row of a weight, by a module that is no change."""

    class Plain(nn.Module):
        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(len(weight)))

        def forward(self, weight: Tensor) -> Tensor:
            return weight + self.shift.view(-1, *[1] * (weight.ndim - 1))

    def change(self, weight: Tensor) -> Change:
        return self.Plain(weight)


BROKEN = {
    "it is documented": Undocumented,
    "attaching changes no output": Hasty,
    "few weights learn and none of the network": Full,
    "training it lowers the loss and leaves the weights alone": Deaf,
    "merged it is a plain network that computes the same": Still,
    "its stored state is merged without a network": Moody,
    "its state is its own and complete": Forgetful,
    "it follows dtype and device": Single,
    "a second one on the same network is refused": Foreign,
}


def test_a_whole_one_passes_and_every_check_is_tried():
    every_check_is_tried(check_adapter, Rows, BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str):
    assert name in failing(check_adapter, BROKEN[name])
