"""Regression as writing: a number is a row of digits, of which each is predicted from those before it."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.losses.contracts._numbers import RangedLoss, RegressionLoss, check_bounds, check_numbers
from repertoire.ranges import AtLeast, Finite, checked
from repertoire.registry import register

__all__ = ["NextDigit", "from_digits", "next_digit_loss", "to_digits"]

# Of the significand of double precision: a longer row of digits could not be told from its neighbours.
_BITS = 52


@checked(also=check_bounds)
def to_digits(
    values: Tensor,
    length: int,
    *,
    base: Annotated[int, AtLeast(2)] = 2,
    low: Annotated[float, Finite] = 0.0,
    high: Annotated[float, Finite] = 1.0,
) -> Tensor:
    r"""Numbers as digits after the point, of their place in a range.

    Song and Bahri, *Decoding-based Regression* (2025), the normalised form: the digits of
    :math:`\lfloor B^K (y - \mathrm{low}) / (\mathrm{high} - \mathrm{low}) \rfloor`, the most significant first.

    Args:
        values: numbers y `[N]`; those outside [low, high] are moved to its nearer end.
        length: K, how many digits, at least 1.
        base: B, at least 2; all digits together hold 52 bits at most, as double precision does.
        low, high: the range.

    Returns:
        int64 `[N, K]` in 0..B-1.

    Raises:
        ShapeError: values that are not `[N]`, an empty range, or digits out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import to_digits
        >>> to_digits(torch.tensor([0.0, 0.625, 1.0]), 3)
        tensor([[0, 0, 0],
                [1, 0, 1],
                [1, 1, 1]])
    """
    if values.ndim != 1 or values.is_complex():
        raise ShapeError(f"values must be real numbers [N], found {values.dtype} {list(values.shape)}")
    _check_length(length, base)
    # In double precision, so that the last digits are right too.
    place = ((values.double() - low) / (high - low) * base**length).floor().long().clamp(0, base**length - 1)
    powers = torch.tensor([base**k for k in reversed(range(length))], device=values.device)
    return place[:, None] // powers % base


@checked(also=check_bounds)
def from_digits(
    digits: Tensor,
    *,
    base: Annotated[int, AtLeast(2)] = 2,
    low: Annotated[float, Finite] = 0.0,
    high: Annotated[float, Finite] = 1.0,
) -> Tensor:
    """Digits as numbers: the middle of all numbers that are written with these digits.

    Song and Bahri, *Decoding-based Regression* (2025). The authors take the lower end, which lies half a digit below.

    Args:
        digits: integers `[..., K]` in 0..B-1, the most significant first.
        base: B, at least 2.
        low, high: the range.

    Returns:
        float32 `[...]`, in [low, high].

    Raises:
        ShapeError: digits that are not integers, an empty range, or digits out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import from_digits
        >>> from_digits(torch.tensor([[1, 0, 1]]))
        tensor([0.6875])
    """
    if not digits.ndim or digits.is_floating_point() or digits.is_complex():
        raise ShapeError(f"digits must be integers [..., K], found {digits.dtype} {list(digits.shape)}")
    length = digits.shape[-1]
    _check_length(length, base)
    powers = torch.tensor([base**k for k in reversed(range(length))], device=digits.device)
    place = ((digits * powers).sum(-1).double() + 0.5) / base**length
    return (low + (high - low) * place).float()


def _check_length(length: int, base: int) -> None:
    most = int(_BITS / math.log2(base))
    if not 1 <= length <= most:
        raise ShapeError(f"there must be 1 to {most} digits to the base {base}, found {length}")


@checked(also=check_bounds)
def next_digit_loss(
    outputs: Tensor,
    targets: Tensor,
    *,
    base: Annotated[int, AtLeast(2)] = 2,
    low: Annotated[float, Finite] | None = None,
    high: Annotated[float, Finite] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy of the digits that a number is written with, each predicted from those before it.

    Song and Bahri, *Decoding-based Regression* (2025):

    .. math:: \ell_i = -\sum_{k=1}^{K} \log p(t_{ik} \mid x_i, t_{i1}, \dots, t_{i, k-1})

    the negative log-probability of all numbers with these digits. Nothing is said of the shape of the distribution, so
    any can be learned, as fine as the digits are. :class:`repertoire.heads.DigitDecoder` gives such outputs.

    Args:
        outputs: float `[N, K * B]`, the scores of the B values of digit 1, then of digit 2 and so on; each was to be
            computed from the right digits before it.
        targets: numbers y `[N]`; those outside [low, high] are moved to its nearer end.
        base: B, at least 2.
        low, high: the range that the digits divide; 0 and 1 if None.
        reduction: "mean" (default) and "sum" over samples give a scalar, "none" gives `[N]`, summed over digits.

    Returns:
        The loss; float32 for half-precision outputs, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, outputs that are no multiple of the base, an empty range; (on the
            CPU) targets that are not finite.

    Example:
        >>> import torch
        >>> from repertoire.losses import next_digit_loss
        >>> next_digit_loss(torch.zeros(1, 3 * 2), torch.tensor([0.4]))  # 3 log 2: nothing known
        tensor(2.0794)
    """
    outputs, targets = check_numbers(outputs, targets, name="outputs")
    low, high = (0.0, 1.0) if low is None or high is None else (low, high)
    length, rest = divmod(outputs.shape[1], base)
    if rest:
        raise ShapeError(f"outputs must be [N, K * {base}] for digits to the base {base}, found {list(outputs.shape)}")
    digits = to_digits(targets, length, base=base, low=low, high=high)
    losses = F.cross_entropy(outputs.reshape(-1, base), digits.reshape(-1), reduction="none")
    return reduce(losses.view(digits.shape).sum(1), reduction)


@register("losses", "next-digit", paper="decoding-based-regression")
class NextDigit(RangedLoss, RegressionLoss, function=next_digit_loss):
    """Module form of `next_digit_loss`.

    With a head that gives the scores of all digits at once, a digit does not know those before it; a
    :class:`repertoire.heads.DigitDecoder` does.
    """

    size = ("length", 8, "K, how many digits a number is written with, at least 1.")
    base: int
    example = "(torch.zeros(2, 4), torch.tensor([0.2, 0.7]))"

    def parts(self) -> int:
        return self.base * super().parts()

    def predict(self, logits: Tensor) -> Tensor:
        low, high = (0.0, 1.0) if self.low is None or self.high is None else (self.low, self.high)
        p = at_least_float32(logits).view(len(logits), -1, self.base).softmax(2)
        digits = torch.arange(self.base, device=p.device, dtype=p.dtype)
        # The mean of the number: it is linear in its digits, and a last half stands for those that were not written.
        places = self.base ** -torch.arange(1, p.shape[1] + 1, device=p.device, dtype=p.dtype)
        place = (p @ digits) @ places + 0.5 * places[-1]
        return (low + (high - low) * place)[:, None]
