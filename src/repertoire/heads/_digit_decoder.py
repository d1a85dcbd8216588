"""A decoder that writes a number digit by digit: a head for regression."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import from_digits, next_digit_loss, to_digits
from repertoire.ranges import AtLeast, Positive, checked

__all__ = ["DigitDecoder"]

LARGEST_TREE = 4096
"""How many numbers a distribution is written out over at most; beyond, it can be sampled."""


class DigitDecoder(nn.Module):
    r"""A regression head that writes a number digit by digit, and so predicts any distribution over numbers.

    Song and Bahri, *Decoding-based Regression* (2025):

    .. math:: p(y \mid x) = \prod_{k=1}^{K} p(t_k \mid x, t_1, \dots, t_{k-1})

    with the digits t of y in its range. A small transformer reads the features and the digits so far and gives the
    scores of the next one. Called with the features and the right numbers it gives scores for all digits at once, from
    the right ones before each, which :func:`repertoire.losses.next_digit_loss` is made for.

    Args:
        in_features: d, width of the features `[N, d]`.
        length: K, how many digits.
        base: B, how many values a digit has.
        low: lower end of the range of numbers; those below are taken for it.
        high: its upper end.
        width: of the transformer.
        layers: of the transformer.
        heads: of its attention; they divide the width.

    Shapes:
        features float `[N, d]` and numbers `[N]` to scores `[N, K * B]`.

    Raises:
        ConfigError: a size that is not positive, a base below 2, too many digits, an empty range.

    Example:
        >>> import torch
        >>> from repertoire.heads import DigitDecoder
        >>> decoder = DigitDecoder(8, length=4, high=100.0)
        >>> z, y = torch.randn(3, 8), torch.tensor([5.0, 50.0, 99.0])
        >>> decoder(z, y).shape, decoder.loss(z, y).shape, decoder.mean(z).shape, decoder.sample(z, 5).shape
        (torch.Size([3, 8]), torch.Size([]), torch.Size([3]), torch.Size([3, 5]))
    """

    @checked
    def __init__(
        self,
        in_features: Annotated[int, AtLeast(1)],
        length: int = 8,
        base: int = 2,
        low: float = 0.0,
        high: float = 1.0,
        width: Annotated[int, AtLeast(1)] = 32,
        layers: Annotated[int, AtLeast(1)] = 1,
        heads: Annotated[int, AtLeast(1)] = 1,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"heads must divide width, found {heads} and {width}")
        from_digits(
            torch.zeros(length, dtype=torch.int64), base=base, low=low, high=high
        )  # refuses what is out of range
        self.in_features = in_features
        self.length = length
        self.base = base
        self.low = low
        self.high = high
        self.start = nn.Linear(in_features, width)
        self.digit = nn.Embedding(base, width)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.transformer = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.scores = nn.Linear(width, base)

    def forward(self, features: Tensor, numbers: Tensor) -> Tensor:
        """Scores `[N, K * B]` of all digits of the numbers `[N]`, each from the right digits before it."""
        self._check(features)
        digits = to_digits(numbers, self.length, base=self.base, low=self.low, high=self.high)
        return self._next(features, digits[:, :-1]).flatten(1)

    def loss(self, features: Tensor, numbers: Tensor) -> Tensor:
        """The mean negative log-probability of the numbers `[N]`: what to minimise."""
        return next_digit_loss(self(features, numbers), numbers, base=self.base, low=self.low, high=self.high)

    def log_density(self, features: Tensor, numbers: Tensor) -> Tensor:
        """Logarithm of the density `[N]` at the numbers `[N]`: constant among numbers with the same digits."""
        width = (self.high - self.low) / self.base**self.length
        losses = next_digit_loss(
            self(features, numbers), numbers, base=self.base, low=self.low, high=self.high, reduction="none"
        )
        return -losses - math.log(width)

    def distribution(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers that can be written, `[B ** K]`, and the probability of each, `[N, B ** K]`.

        Raises:
            ShapeError: there are more than 4096 of them.
        """
        self._check(features)
        leaves = self.base**self.length
        if leaves > LARGEST_TREE:
            raise ShapeError(
                f"{self.length} digits to the base {self.base} write {leaves} numbers, too many: use sample"
            )
        places = torch.arange(leaves, device=features.device)
        powers = torch.tensor([self.base**k for k in reversed(range(self.length))], device=features.device)
        digits = places[:, None] // powers % self.base
        log_p = features.new_zeros(len(features), 1)
        for k in range(self.length):
            prefixes = digits[:: self.base ** (self.length - k), :k]  # the nodes of the tree at depth k
            count = len(prefixes)
            scores = self._next(
                features.repeat_interleave(count, 0), prefixes.repeat(len(features), 1), last_only=True
            ).log_softmax(-1)
            log_p = (log_p[:, :, None] + scores.view(len(features), count, self.base)).flatten(1)
        return from_digits(digits, base=self.base, low=self.low, high=self.high), log_p.exp()

    def mean(self, features: Tensor) -> Tensor:
        """The mean `[N]` of the predicted distribution, exactly; of as many numbers as `distribution` can hold."""
        numbers, probabilities = self.distribution(features)
        return probabilities @ numbers.to(probabilities)

    def median(self, features: Tensor) -> Tensor:
        """The median `[N]` of the predicted distribution, which bears an uncertain first digit better than the mean."""
        numbers, probabilities = self.distribution(features)
        below = probabilities.cumsum(1) < 0.5
        return numbers[below.sum(1).clamp_max(len(numbers) - 1)]

    @checked
    @torch.no_grad()
    def sample(
        self,
        features: Tensor,
        count: int,
        *,
        temperature: Annotated[float, Positive] = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Numbers `[N, count]` drawn from the predicted distribution, digit by digit.

        Args:
            features: float `[N, d]`.
            count: how many to draw for each row.
            temperature: positive; below 1 sharpens each digit's distribution.
            generator: of random numbers, on the device of the features; torch's own if None.
        """
        self._check(features)
        if not len(features) or not count:
            return torch.zeros(len(features), count, device=features.device)
        rows = features.repeat_interleave(count, 0)
        digits = torch.empty(len(rows), 0, dtype=torch.int64, device=features.device)
        for _ in range(self.length):
            scores = self._next(rows, digits, last_only=True).float() / temperature
            digits = torch.cat([digits, torch.multinomial(scores.softmax(1), 1, generator=generator)], 1)
        return from_digits(digits, base=self.base, low=self.low, high=self.high).view(len(features), count)

    def _next(self, features: Tensor, digits: Tensor, *, last_only: bool = False) -> Tensor:
        """Scores `[N, k + 1, B]` of the digits after each of the first 0 to k ones, `[N, k]`; or `[N, B]`, the last."""
        written = torch.cat([self.start(features)[:, None], self.digit(digits)], 1)
        written = written + self.place[: written.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(
            written.shape[1], device=written.device, dtype=written.dtype
        )
        states = self.transformer(written, mask=mask, is_causal=True)
        scores: Tensor = self.scores(states[:, -1] if last_only else states)
        return scores

    def _check(self, features: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.in_features:
            raise ShapeError(f"features must be [N, {self.in_features}], found {list(features.shape)}")
