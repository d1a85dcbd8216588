from __future__ import annotations

import math

import pytest
import torch

from repertoire import losses
from repertoire.backbones import Identity
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.heads import BatchAttention
from repertoire.methods import Classifier, Normalize, Supervised
from repertoire.rules import Backprop


def made(**options: object) -> BatchAttention:
    torch.manual_seed(0)
    return BatchAttention(6, 3, **options).double()


def rows(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def ratio(a: list[float], b: list[float]) -> float:
    """The peak signal-to-noise ratio of two vectors, as a share of 100 decibels."""
    error = sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)
    peak = max(max(a) - min(a), max(b) - min(b))
    return min(100.0, 10 * math.log10(peak**2 / max(error, 1e-12))) / 100


@pytest.mark.parametrize("position", ["relationship", "none"])
def test_agrees_with_the_formula(position: str):
    head, x = made(position=position), rows()
    if head.position is not None:
        with torch.no_grad():
            head.position.fill_(2.5)
    q, k, v = (part(x).tolist() for part in (head.query, head.key, head.value))
    expected = []
    for i in range(5):
        scores = [sum(a * b for a, b in zip(q[i], k[j], strict=True)) / math.sqrt(6) for j in range(5)]
        if position == "relationship":
            scores = [s + 2.5 * ratio(x[i].tolist(), x[j].tolist()) for j, s in enumerate(scores)]
        weights = [math.exp(s) for s in scores]
        seen = [sum(w * v[j][c] for j, w in enumerate(weights)) / sum(weights) for c in range(6)]
        expected.append([float(x[i, c]) + seen[c] for c in range(6)])
    torch.testing.assert_close(
        head(x), head.classifier(torch.tensor(expected, dtype=torch.float64)), rtol=1e-9, atol=1e-9
    )


def test_a_batch_of_one_is_itself_and_its_value():
    head, x = made(), rows(1)
    torch.testing.assert_close(head(x), head.classifier(x + head.value(x)))


def test_who_resembles_a_sample_is_looked_at_more():
    head = made()
    with torch.no_grad():
        for part in (head.query, head.key):
            part.weight.zero_()
            part.bias.zero_()
    x = rows(3)
    x[1] = x[0] + 1e-3
    weights = head.attention(x)
    assert weights[0, 0] > weights[0, 1] > weights[0, 2]


def test_a_batch_of_one_class_answers_otherwise_than_a_mixed_one():
    """What the docstring warns of: a head that was trained does better where its neighbours are of its class."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(3, 6, generator=generator)
    y = torch.arange(600) % 3
    x = means[y] + 1.5 * torch.randn(600, 6, generator=generator)
    torch.manual_seed(0)
    head = BatchAttention(6, 3)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    for step in range(300):
        part = torch.randperm(600, generator=generator)[:60]
        part = part[y[part] == step % 3] if step % 2 else part  # some batches are sorted, as in a folder
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(x[part]), y[part]).backward()
        optimizer.step()
    with torch.no_grad():
        mixed = (head(x).argmax(1) == y).float().mean()
        alone = torch.cat([(head(x[y == c]).argmax(1) == c).float() for c in range(3)]).mean()
    assert alone > mixed + 0.05


def test_a_batch_is_not_split():
    model = Classifier(Normalize([0.0] * 6, [1.0] * 6), Identity(6), BatchAttention(6, 3))
    method = Supervised(model, losses.CrossEntropy())
    assert method.needs.within_rank
    with pytest.raises(ConfigError, match="accumulate"):
        Backprop().check(method, accumulate=2)
    assert method.step(Batch((torch.randn(4, 6),), torch.arange(4) % 3, torch.arange(4))).loss.isfinite()
