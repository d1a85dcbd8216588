"""Regression as writing: a number is a row of digits, of which each is predicted from those before it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._numbers import RegressionLoss, check_numbers
from repertoire.registry import register

__all__ = ["NextDigit", "from_digits", "next_digit_loss", "to_digits"]

# Of the significand of double precision: a longer row of digits could not be told from its neighbours.
_BITS = 52


def to_digits(values: Tensor, length: int, *, base: int = 2, low: float = 0.0, high: float = 1.0) -> Tensor:
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
    _check(length, base, low, high)
    # In double precision, so that the last digits are right too.
    place = ((values.double() - low) / (high - low) * base**length).floor().long().clamp(0, base**length - 1)
    powers = torch.tensor([base**k for k in reversed(range(length))], device=values.device)
    return place[:, None] // powers % base


def from_digits(digits: Tensor, *, base: int = 2, low: float = 0.0, high: float = 1.0) -> Tensor:
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
    _check(length, base, low, high)
    powers = torch.tensor([base**k for k in reversed(range(length))], device=digits.device)
    place = ((digits * powers).sum(-1).double() + 0.5) / base**length
    return (low + (high - low) * place).float()


def _check(length: int, base: int, low: float, high: float) -> None:
    if base < 2:
        raise ShapeError(f"base must be 2 or more, found {base}")
    most = int(_BITS / math.log2(base))
    if not 1 <= length <= most:
        raise ShapeError(f"there must be 1 to {most} digits to the base {base}, found {length}")
    if not -math.inf < low < high < math.inf:
        raise ShapeError(f"low must be less than high, and both finite, found {low} and {high}")


def next_digit_loss(
    outputs: Tensor,
    targets: Tensor,
    *,
    base: int = 2,
    low: float = 0.0,
    high: float = 1.0,
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
        low, high: the range that the digits divide.
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
    length, rest = divmod(outputs.shape[1], max(base, 1))
    if rest:
        raise ShapeError(f"outputs must be [N, K * {base}] for digits to the base {base}, found {list(outputs.shape)}")
    digits = to_digits(targets, length, base=base, low=low, high=high)
    losses = F.cross_entropy(outputs.reshape(-1, base), digits.reshape(-1), reduction="none")
    return reduce(losses.view(digits.shape).sum(1), reduction)


@register("losses", "next-digit", paper="decoding-based-regression")
class NextDigit(RegressionLoss):
    r"""Cross-entropy of the digits that a number is written with, each predicted from those before it.

    The module form of :func:`repertoire.losses.next_digit_loss`, which gives the paper and the formula.

    Args:
        base: how many values a digit has, at least 2.
        low: lower end of the range that the digits divide.
        high: its upper end.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Shapes:
        outputs float `[N, K * B]`; targets numbers `[N]`.

    Raises:
        ValueError: a base below 2, or an empty range.

    Example:
        >>> import torch
        >>> from repertoire.losses import NextDigit
        >>> NextDigit(base=10, high=100.0)(torch.zeros(1, 2 * 10), torch.tensor([42.0]))  # 2 log 10
        tensor(4.6052)
    """

    def __init__(self, base: int = 2, low: float = 0.0, high: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        _check(1, base, low, high)
        self.base = base
        self.low = low
        self.high = high

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of outputs `[N, K * B]` against numbers `[N]`."""
        return next_digit_loss(logits, targets, base=self.base, low=self.low, high=self.high, reduction=self.reduction)
