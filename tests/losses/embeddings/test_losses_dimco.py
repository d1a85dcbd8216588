from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import DIMCO, dimco_codes, dimco_loss

pytestmark = pytest.mark.filterwarnings("ignore::repertoire.errors.RepertoireWarning")


def entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


def mean(rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def reference(logits, labels, symbols, weight):
    """Mutual informations from the definition, position by position and pair by pair."""
    rows = [i for i in range(len(labels)) if labels.count(labels[i]) > 1]
    if not rows:
        return 0.0
    length = logits.shape[1] // symbols
    p = {i: logits[i].view(length, symbols).softmax(1).tolist() for i in rows}
    informative, shared = 0.0, []
    for position in range(length):
        conditional = 0.0
        for c in set(labels):
            members = [i for i in rows if labels[i] == c]
            if members:
                conditional += len(members) / len(rows) * entropy(mean([p[i][position] for i in members]))
        informative += entropy(mean([p[i][position] for i in rows])) - conditional
        for other in range(length):
            if other != position:
                joint = mean([[a * b for a in p[i][position] for b in p[i][other]] for i in rows])
                marginals = sum(entropy(mean([p[i][k] for i in rows])) for k in (position, other))
                shared.append(marginals - entropy(joint))
    return -informative / length + weight * (sum(shared) / len(shared) if shared else 0.0)


@given(st.integers(0, 14), st.integers(1, 4), st.integers(1, 4), st.integers(2, 4), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_agrees_with_the_definition(n, classes, length, symbols, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, length * symbols, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (n,), generator=generator)
    expected = reference(logits, labels.tolist(), symbols, 0.7)
    found = float(dimco_loss(logits, labels, symbols=symbols, independence=0.7))
    assert math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9)


def test_a_reference_set_is_more_samples():
    x = torch.randn(10, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    found = dimco_loss(x[:4], labels[:4], symbols=3, reference=x[4:], reference_labels=labels[4:])
    torch.testing.assert_close(found, dimco_loss(x, labels, symbols=3))


def test_gradient():
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 5])
    assert torch.autograd.gradcheck(lambda a: dimco_loss(a, labels, symbols=3), x)


def test_the_best_code_tells_every_class_and_says_nothing_twice():
    """Four classes in two bits: each bit tells log 2 of the class, and the bits are independent."""
    bits = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).repeat_interleave(3, dim=0)
    logits = 1000.0 * torch.nn.functional.one_hot(bits, 2).flatten(1).double()
    labels = torch.arange(4).repeat_interleave(3)
    best = dimco_loss(logits, labels, symbols=2, independence=1.0)
    torch.testing.assert_close(best, torch.tensor(-math.log(2), dtype=torch.float64))
    twice = logits[:, [0, 1, 0, 1]]  # the first bit at both positions
    torch.testing.assert_close(
        dimco_loss(twice, labels, symbols=2, independence=1.0), torch.zeros((), dtype=torch.float64)
    )
    assert torch.equal(dimco_codes(logits, symbols=2), bits)


def test_what_does_not_fit():
    with pytest.raises(ShapeError, match="choose symbols, or a width"):
        dimco_loss(torch.zeros(2, 5), torch.tensor([0, 0]), symbols=2)
    with pytest.raises(ConfigError, match="no multiple of the 16 symbols"):
        DIMCO().prepare(24)
    with pytest.raises(ConfigError, match="symbols must be 2 or more"):
        DIMCO(symbols=1)
    with pytest.raises(ConfigError, match="independence must be 0 or more"):
        DIMCO(independence=-0.1)
    with pytest.raises(ShapeError, match="embeddings must be"):
        dimco_codes(torch.zeros(4), symbols=2)
