from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import SPCL, spcl_loss

pytestmark = pytest.mark.filterwarnings("ignore::repertoire.errors.RepertoireWarning")
SETTINGS = settings(max_examples=25, deadline=None)


def reference(x, labels, prototypes, prototype_labels, temperature, y=None, y_labels=None):
    """Equation of the paper, anchor by anchor."""
    losses = []
    for i, row in enumerate(x):
        if y is None:
            others = [(x[j], labels[j]) for j in range(len(x)) if j != i]
        else:
            others = list(zip(y, y_labels, strict=True))
        others += [(p, c) for p, c in zip(prototypes, prototype_labels, strict=True) if c >= 0]
        scores = [((1 + float(torch.cosine_similarity(row, o, dim=0))) / 2, c == labels[i]) for o, c in others]
        own = [math.exp(s / temperature) for s, kin in scores if kin]
        if own:
            losses.append(-math.log(sum(own) / sum(math.exp(s / temperature) for s, _ in scores) / len(own)))
    return sum(losses) / len(losses) if losses else 0.0


def problem(n, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, classes, (n,), generator=generator)


@given(st.integers(0, 12), st.integers(1, 4), st.booleans(), st.integers(0, 2**31))
@SETTINGS
def test_agrees_with_the_formula(n, classes, others, seed):
    (x, labels), (p, _), (y, y_labels) = problem(n, classes, seed), problem(3, 1, seed + 1), problem(5, 4, seed + 2)
    p_labels = torch.tensor([0, -1, 2])
    reference_set = {"reference": y, "reference_labels": y_labels} if others else {}
    found = spcl_loss(x, labels, p, p_labels, temperature=0.2, **reference_set)
    expected = reference(x, labels.tolist(), p, p_labels.tolist(), 0.2, *((y, y_labels.tolist()) if others else ()))
    assert math.isclose(float(found), expected, rel_tol=1e-9, abs_tol=1e-9)


def test_gradient():
    (x, labels), (p, _) = problem(7, 3, 0), problem(3, 1, 1)
    assert torch.autograd.gradcheck(lambda a: spcl_loss(a, labels, p, torch.arange(3)), x.requires_grad_())


def remember(loss, rows, labels):
    loss(rows, labels)
    loss.after_update()


@given(st.integers(1, 6), st.lists(st.integers(1, 12), max_size=5), st.integers(0, 2**31))
@SETTINGS
def test_remembers_the_last_of_each_class(memory, sizes, seed):
    loss, last = SPCL(num_classes=3, dimensions=1, memory=memory, draw=100), {0: [], 1: [], 2: []}
    generator = torch.Generator().manual_seed(seed)
    number = 1.0
    for size in sizes:
        labels = torch.randint(-1, 4, (size,), generator=generator)  # -1 and 3 have no prototypes
        rows = torch.arange(number, number + size)
        number += size
        remember(loss, rows[:, None], labels)
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
            if label in last:
                last[label] = [*last[label], row][-memory:]
    means, classes = loss.prototypes()
    for c, rows in last.items():
        kept = [row for row in loss.pool[c, :, 0].tolist() if row]
        assert sorted(kept) == rows
        assert classes[c] == (c if rows else -1)
        assert math.isclose(float(means[c]), sum(rows) / len(rows) if rows else 0.0, rel_tol=1e-5)


def test_prototypes_are_means_of_a_random_few():
    loss = SPCL(num_classes=1, dimensions=1, memory=8, draw=2)
    remember(loss, torch.tensor([[1.0], [10.0], [100.0]]), torch.tensor([0, 0, 0]))
    torch.manual_seed(0)
    seen = {round(float(loss.prototypes()[0]), 1) for _ in range(100)}
    assert seen == {5.5, 50.5, 55.0}


def test_evaluation_leaves_no_trace():
    loss = SPCL(num_classes=2, dimensions=4)
    loss.eval()
    remember(loss, torch.eye(4), torch.tensor([0, 0, 1, 1]))
    assert not loss.pushed.any()


def test_a_lonely_sample_has_its_prototype():
    loss = SPCL(num_classes=2, dimensions=2)
    x, labels = torch.eye(2, requires_grad=True), torch.tensor([0, 1])
    assert loss(x, labels) == 0
    loss.after_update()
    assert loss(x, labels) > 0


def test_what_does_not_fit():
    with pytest.raises(ShapeError, match="prototype_labels must be"):
        spcl_loss(torch.eye(2), torch.tensor([0, 1]), torch.eye(2))
    with pytest.raises(ShapeError, match="prototypes must be"):
        spcl_loss(torch.eye(2), torch.tensor([0, 1]), torch.eye(3), torch.arange(3))
    with pytest.raises(ConfigError, match="dimensions of the embeddings are not known"):
        SPCL(num_classes=2)(torch.eye(2), torch.tensor([0, 1]))
    for name in ("num_classes", "memory", "draw"):
        with pytest.raises(ConfigError, match=f"{name} must be positive"):
            SPCL(**{"num_classes": 2, name: 0})
