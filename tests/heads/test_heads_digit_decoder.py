"""The decoder of numbers: scores, the tree of digits, samples and densities agree with each other."""

from __future__ import annotations

import math

import pytest
import torch

from repertoire.errors import ConfigError, ShapeError
from repertoire.heads import DigitDecoder
from repertoire.losses import from_digits


@pytest.fixture(params=[(3, 2), (2, 5), (1, 4)], ids=str)
def decoder(request):
    length, base = request.param
    torch.manual_seed(0)
    head = DigitDecoder(6, length=length, base=base, low=-1.0, high=3.0, width=8)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head.double()


def rows(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_tree_holds_what_the_scores_say(decoder):
    """The probability of every number, digit by digit by the definition, is that of the distribution."""
    features = rows()
    numbers, probabilities = decoder.distribution(features)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(4, dtype=torch.float64))
    for leaf, number in enumerate(numbers.tolist()):
        scores = decoder(features, torch.full((4,), number, dtype=torch.float64))
        expected = torch.ones(4, dtype=torch.float64)
        place = leaf
        digits = []
        for _ in range(decoder.length):
            place, digit = divmod(place, decoder.base)
            digits.insert(0, digit)
        for k, digit in enumerate(digits):
            expected *= scores[:, k * decoder.base : (k + 1) * decoder.base].softmax(1)[:, digit]
        torch.testing.assert_close(probabilities[:, leaf], expected)
        assert number == from_digits(torch.tensor(digits), base=decoder.base, low=-1.0, high=3.0).item()


def test_a_digit_does_not_see_those_after_it(decoder):
    low, high = (torch.tensor([y], dtype=torch.float64) for y in (-1.0, 2.99))
    first = slice(0, decoder.base)
    torch.testing.assert_close(decoder(rows(1), low)[:, first], decoder(rows(1), high)[:, first])


def test_density_integrates_to_one_and_loss_is_its_average(decoder):
    features = rows(1)
    count = decoder.base**decoder.length
    grid = torch.linspace(-1, 3, 40 * count + 1, dtype=torch.float64)[:-1] + 4 / (80 * count)
    density = decoder.log_density(features.expand(len(grid), -1), grid).exp()
    torch.testing.assert_close(density.mean() * 4, torch.tensor(1.0, dtype=torch.float64))
    numbers = torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    expected = -decoder.log_density(rows(), numbers) - math.log(4 / count)
    torch.testing.assert_close(decoder.loss(rows(), numbers), expected.mean())


def test_mean_median_and_samples_are_those_of_the_distribution(decoder):
    features = rows()
    numbers, probabilities = decoder.distribution(features)
    torch.testing.assert_close(decoder.mean(features), (probabilities * numbers).sum(1))
    for row, median in zip(probabilities.tolist(), decoder.median(features).tolist(), strict=True):
        pairs = list(zip(numbers.tolist(), row, strict=True))
        assert sum(p for y, p in pairs if y < median) < 0.5 <= sum(p for y, p in pairs if y <= median) + 1e-9
    drawn = decoder.sample(features, 4000, generator=torch.Generator().manual_seed(0))
    shares = (drawn[:, :, None] == numbers).double().mean(1)
    torch.testing.assert_close(shares, probabilities, rtol=0, atol=0.05)
    sharp = decoder.sample(features[:1], 50, temperature=1e-4, generator=torch.Generator().manual_seed(0))
    assert len(sharp.unique()) == 1


def test_it_learns_two_answers_at_once():
    """Numbers of which half are near 0.2 and half near 0.8: no single number says that."""
    torch.manual_seed(0)
    decoder, features = DigitDecoder(2, length=4, width=8), torch.zeros(64, 2)
    numbers = torch.tensor([0.2, 0.8]).repeat(32)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        decoder.loss(features, numbers).backward()
        optimizer.step()
    with torch.no_grad():
        values, probabilities = decoder.distribution(features[:1])
    near = (values - 0.2).abs().minimum((values - 0.8).abs()) < 1 / 16
    assert probabilities[0, near].sum() > 0.9
    assert abs(float(probabilities[0, values < 0.5].sum()) - 0.5) < 0.1


def test_nothing_in_nothing_out(decoder):
    empty = rows(0)
    assert decoder(empty, torch.zeros(0)).shape == (0, decoder.length * decoder.base)
    assert decoder.sample(empty, 3).shape == (0, 3)
    assert decoder.sample(rows(2), 0).shape == (2, 0)
    assert decoder.loss(empty, torch.zeros(0)) == 0


@pytest.mark.parametrize(
    "options", [{"length": 0}, {"base": 1}, {"length": 60}, {"low": 1.0}, {"width": 0}, {"heads": 3, "width": 8}]
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=r"digits|base|low|width"):
        DigitDecoder(4, **options)


def test_arguments_that_do_not_fit():
    with pytest.raises(ShapeError, match="use sample"):
        DigitDecoder(2, length=13).distribution(torch.zeros(1, 2))
    with pytest.raises(ShapeError, match=r"features must be \[N, 2\]"):
        DigitDecoder(2)(torch.zeros(1, 3), torch.zeros(1))
    with pytest.raises(ConfigError, match="temperature must be positive"):
        DigitDecoder(2).sample(torch.zeros(1, 2), 1, temperature=0)
