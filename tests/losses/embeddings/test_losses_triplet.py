from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from repertoire.errors import ConfigError, RepertoireWarning
from repertoire.losses import Triplet, triplet_loss
from repertoire.losses.contracts import _positives
from repertoire.losses.embeddings import _triplet
from repertoire.ops import tile_size

pytestmark = pytest.mark.filterwarnings("ignore::repertoire.errors.RepertoireWarning")


def reference(x, labels, mining, margin, distance, normalize=False, nonzero=False, y=None, y_labels=None) -> Tensor:
    """Triplet by triplet."""
    within = y is None
    y, y_labels = (x, labels) if y is None else (y, y_labels)
    if normalize:
        y = y / y.norm(dim=1, keepdim=True)
        x = y if within else x / x.norm(dim=1, keepdim=True)

    def d(i: int, j: int) -> Tensor:
        if distance == "cosine":
            return 1 - (x[i] * y[j]).sum() / (x[i].norm() * y[j].norm())
        square = ((x[i] - y[j]) ** 2).sum()
        return square if distance == "sqeuclidean" else square.sqrt() if square > 0 else square * 0

    def loss(gap: Tensor) -> Tensor:
        return torch.log1p(gap.exp()) if margin is None else (gap + margin).clamp_min(0)

    terms = []
    for a in range(len(x)):
        positives = [d(a, j) for j in range(len(y)) if y_labels[j] == labels[a] and not (within and j == a)]
        negatives = [d(a, j) for j in range(len(y)) if y_labels[j] != labels[a]]
        if not positives or not negatives:
            continue
        if mining == "batch-hard":
            terms.append(loss(max(positives) - min(negatives)))
        elif mining == "batch-all":
            terms += [loss(p - n) for p, n in itertools.product(positives, negatives)]
        else:
            for p in positives:
                beyond = [n for n in negatives if n > p]
                if beyond:
                    terms.append(loss(p - min(beyond)))
    if nonzero:
        terms = [t for t in terms if t > 0]
    return torch.stack(terms).mean() if terms else x.sum() * 0


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 8),
    m=st.one_of(st.none(), st.integers(1, 7)),
    classes=st.integers(1, 4),
    mining=st.sampled_from(["batch-hard", "semi-hard", "batch-all"]),
    margin=st.sampled_from([None, 0.0, 0.7]),
    distance=st.sampled_from(["euclidean", "sqeuclidean", "cosine"]),
    normalize=st.booleans(),
    nonzero=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_agrees_with_the_formula(n, m, classes, mining, margin, distance, normalize, nonzero, seed):
    nonzero = nonzero and mining == "batch-all" and margin is not None
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(classes, (n,), generator=generator)
    y = y_labels = None
    if m is not None:
        y = torch.randn(m, 3, generator=generator, dtype=torch.float64, requires_grad=True)
        y_labels = torch.randint(classes, (m,), generator=generator)
    expected = reference(x, labels, mining, margin, distance, normalize, nonzero, y, y_labels)
    module = Triplet(mining, margin, distance, normalize, nonzero)
    found = module(x, labels, y, y_labels)
    torch.testing.assert_close(found, expected)
    leaves = [x] if y is None else [x, y]
    a, b = (
        torch.autograd.grad(v + 0 * sum(t.sum() for t in leaves), leaves, allow_unused=True) for v in (found, expected)
    )
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mining", ["batch-hard", "semi-hard", "batch-all"])
@pytest.mark.parametrize("margin", [None, 0.5])
def test_gradcheck_across_strips(mining, margin, monkeypatch):
    monkeypatch.setattr(_triplet, "_TRIPLETS", 60)
    x = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 3, 2, 2])
    with tile_size(30):
        assert torch.autograd.gradcheck(lambda x: triplet_loss(x, labels, mining=mining, margin=margin), (x,))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), mining=st.sampled_from(["batch-hard", "semi-hard", "batch-all"]))
def test_order_rotation_and_place_do_not_matter(seed, mining):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (12,), generator=generator)
    order = torch.randperm(12, generator=generator)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    expected = triplet_loss(x, labels, mining=mining, margin=0.3)
    moved = x[order] @ rotation + 5
    torch.testing.assert_close(triplet_loss(moved, labels[order] * 7 - 3, mining=mining, margin=0.3), expected)


def test_many_rows_cross_tiles():
    x = torch.randn(1100, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.arange(1100) % 7
    d = torch.cdist(x.double(), x.double())
    same = labels[:, None] == labels
    far = d.masked_fill(~same, -torch.inf).amax(1)
    near = d.masked_fill(same, torch.inf).amin(1)
    torch.testing.assert_close(triplet_loss(x, labels).double(), torch.log1p((far - near).exp()).mean())
    torch.testing.assert_close(triplet_loss(x, labels, margin=0.1).double(), (far - near + 0.1).relu().mean())


@pytest.mark.parametrize("mining", ["batch-hard", "semi-hard", "batch-all"])
@pytest.mark.parametrize("margin", [None, 0.5])
def test_equal_embeddings_have_no_gradient_and_a_loss_of_the_margin(mining, margin):
    x = torch.ones(4, 3, requires_grad=True)
    loss = triplet_loss(x, torch.tensor([0, 0, 1, 1]), mining=mining, margin=margin)
    # Nothing is farther than the positive, so that there is no semi-hard triplet.
    expected = 0.0 if mining == "semi-hard" else math.log(2) if margin is None else margin
    assert loss.item() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(loss, x)
    assert not gradient.any()


def test_one_class_is_zero_and_warned_about_once(monkeypatch):
    monkeypatch.setattr(_positives, "_warned", set())
    x = torch.randn(3, 2, requires_grad=True)
    with pytest.warns(RepertoireWarning, match="has a negative"):
        loss = triplet_loss(x, torch.zeros(3, dtype=torch.int64))
    assert loss == 0
    assert not torch.autograd.grad(loss, x)[0].any()
    assert "negatives" in _positives._warned


def test_a_row_that_is_no_number_spoils_the_loss():
    x = torch.randn(4, 2)
    x[1, 0] = torch.nan
    for mining in ("batch-hard", "semi-hard", "batch-all"):
        assert triplet_loss(x, torch.tensor([0, 0, 1, 1]), mining=mining).isnan()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mining": "hard"}, "found 'hard'"),
        ({"margin": -1.0}, "margin must be 0 or more"),
        ({"distance": "manhattan"}, "found 'manhattan'"),
        ({"nonzero": True}, "nonzero is for mining='batch-all'"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        Triplet(**options)
