"""Each check of a head finds what it is there for."""

from __future__ import annotations

import pytest
import torch
from broken import every_check_is_tried, failing
from torch import Tensor, nn

from repertoire.heads import Head
from repertoire.testing import check_head


class Whole(Head):
    """A linear classifier.

    Args:
        in_features: width of the features.
        num_classes: number of classes.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.linear = nn.Linear(in_features, num_classes)
        self.per_class = ("linear.weight", "linear.bias")

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        self.check_features(features)
        return self.linear(features)


class Undocumented(Whole):
    """A classifier."""


class Peeking(Whole):
    __doc__ = Whole.__doc__

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        logits = super().forward(features)
        return logits if targets is None or not len(targets) else logits + nn.functional.one_hot(targets, 5)


class Otherwise(Whole):
    __doc__ = Whole.__doc__

    def outputs(self, features: Tensor, targets: Tensor | None = None) -> list[tuple[float, Tensor]]:
        return [(1.0, 2 * self(features, targets))]


class HalfGrown(Whole):
    __doc__ = Whole.__doc__

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.per_class = ("linear.weight",)


class Unused(Whole):
    __doc__ = Whole.__doc__

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.never = nn.Parameter(torch.zeros(3))


class Together(Whole):
    __doc__ = Whole.__doc__

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        self.check_features(features)
        return self.linear(features - features.mean(0)) if len(features) else self.linear(features)


class Counting(Whole):
    __doc__ = Whole.__doc__

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        self.calls.add_(1)
        return super().forward(features)


class Single(Whole):
    __doc__ = Whole.__doc__

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.turn = [torch.eye(in_features)]  # which no module knows of

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        self.check_features(features)
        return self.linear(features @ self.turn[0])


class Undecided(Whole):
    __doc__ = Whole.__doc__

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        logits = super().forward(features)
        return logits if float(features.sum()) > 0 else logits + 0.0


class Compiled(Whole):
    __doc__ = Whole.__doc__

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        return super().forward(features) * (2.0 if torch.compiler.is_compiling() else 1.0)


class Copied(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class OldFashioned(Whole):
    __doc__ = Whole.__doc__

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        return Copied.apply(super().forward(features))


class Trusting(Whole):
    __doc__ = Whole.__doc__

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        return self.linear(features)


BROKEN = {
    "it is documented": Undocumented,
    "logits with and without targets": Peeking,
    "outputs begin with forward": Otherwise,
    "it grows or says why not": HalfGrown,
    "gradients reach everything": Unused,
    "rows do not depend on each other unless declared": Together,
    "its state is complete and moves after updates only": Counting,
    "any precision": Single,
    "it can be exported": Undecided,
    "it can be compiled": Compiled,
    "functions of torch func": OldFashioned,
    "what does not fit is refused": Trusting,
}


def test_a_whole_one_passes_and_every_check_is_tried():
    every_check_is_tried(check_head, Whole, BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str):
    assert name in failing(check_head, BROKEN[name])
