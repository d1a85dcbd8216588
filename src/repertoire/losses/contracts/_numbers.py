"""The contract of losses for numbers a sample, and the input checks that they share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import LogitsLoss
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.losses.contracts._function import derive

if TYPE_CHECKING:
    from repertoire.data import Kind
from repertoire.ranges import AtLeast

__all__ = ["RangedLoss", "RegressionLoss", "check_bounds", "check_number_pairs", "check_numbers"]


class RegressionLoss(LogitsLoss):
    """`loss(outputs, numbers)` for outputs `[N, K]` that say numbers `[N, k]`, or `[N]` for k = 1.

    Args:
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.
    """

    targets: ClassVar[tuple[Kind, ...]] = ("number",)
    example = "(torch.zeros(2, 1), torch.tensor([0.2, 0.7]))"


class RangedLoss(LogitsLoss):
    """Base of losses whose outputs divide a range of numbers: one number a sample, and outputs of a width of its own.

    The range is `low` to `high`, which whoever knows the training set tells where the user does not.
    """

    targets: ClassVar[tuple[Kind, ...]] = ("number",)
    size: ClassVar[tuple[str, int, str]]
    """The option that says into how many parts the range is divided: its name, default and meaning."""
    low: float | None
    high: float | None

    @classmethod
    def from_function(cls, function: Callable[..., Any]) -> None:
        name, default, meaning = cls.size
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        derive(
            cls,
            function,
            after=[inspect.Parameter(name, kind, default=default, annotation=Annotated[int, AtLeast(1)])],
            texts={name: meaning},
        )

    def parts(self) -> int:
        """Number of outputs."""
        return int(getattr(self, self.size[0]))

    def width(self, outputs: int) -> int:
        if outputs != 1:
            raise ConfigError(f"{type(self).__name__} predicts one number a sample, and these have {outputs}; use mse")
        return self.parts()


def check_bounds(low: float | None, high: float | None) -> None:
    """Raises `ConfigError` unless both ends of a range are given and in order, or neither is."""
    if (low is None) != (high is None):
        raise ConfigError(f"low and high go together, found low={low} and high={high}")
    if low is not None and high is not None and not low < high:
        raise ConfigError(f"low must be less than high, found {low} and {high}")


def check_numbers(outputs: Tensor, targets: Tensor, *, name: str = "logits") -> tuple[Tensor, Tensor]:
    """Outputs in float32 or better, and the targets as floating point numbers `[N]`.

    Looks only at values on the CPU, where it costs no sync.

    Args:
        outputs: float `[N, K]`.
        targets: real numbers `[N]` or `[N, 1]`.
        name: what the outputs are called in messages.

    Raises:
        ShapeError: outputs that are not floating point `[N, K]`, targets of another shape, or not finite.
    """
    if outputs.ndim != 2 or not outputs.is_floating_point():
        raise ShapeError(f"{name} must be floating point [N, K], found {outputs.dtype} {list(outputs.shape)}")
    if targets.shape not in (outputs.shape[:1], (len(outputs), 1)) or targets.is_complex():
        raise ShapeError(
            f"targets must be numbers [{len(outputs)}], one for each row, found {targets.dtype} {list(targets.shape)}"
        )
    return _floats(outputs, targets.reshape(len(outputs)))


def check_number_pairs(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs `[N, k]` in float32 or better, and the targets as floating point numbers `[N, k]`.

    Raises:
        ShapeError: outputs that are not floating point `[N, k]`; targets of another shape (for k = 1 also `[N]`), or
            not finite.
    """
    if outputs.ndim != 2 or not outputs.is_floating_point():
        raise ShapeError(f"outputs must be floating point [N, k], found {outputs.dtype} {list(outputs.shape)}")
    single = outputs.shape[1] == 1 and targets.shape == outputs.shape[:1]
    if (not single and targets.shape != outputs.shape) or targets.is_complex():
        raise ShapeError(
            f"targets must be numbers {list(outputs.shape)} like the outputs, found {targets.dtype} "
            f"{list(targets.shape)}"
        )
    return _floats(outputs, targets.reshape(outputs.shape))


def _floats(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    outputs = at_least_float32(outputs)
    targets = at_least_float32(targets) if targets.is_floating_point() else targets.to(outputs.dtype)
    if targets.device.type == "cpu" and targets.numel() and not torch.compiler.is_compiling():
        wrong = ~targets.isfinite()
        if bool(wrong.any()):
            rows = wrong.flatten(1).any(1).nonzero().flatten() if wrong.ndim > 1 else wrong.nonzero().flatten()
            named = ", ".join(map(str, rows[:10].tolist())) + (", ..." if len(rows) > 10 else "")
            raise ShapeError(f"targets must be finite, found {float(targets[wrong][0])}; not finite are rows {named}")
    return outputs, targets
