from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import SubclassContrastive, subclass_contrastive_loss, supcon_loss

pytestmark = pytest.mark.filterwarnings("ignore::repertoire.errors.RepertoireWarning")
SETTINGS = settings(max_examples=25, deadline=None)


def mean_log_share(s, positives, candidates):
    total = math.log(sum(math.exp(s[j]) for j in candidates))
    return sum(s[j] - total for j in positives) / len(positives)


def reference(x, labels, subclasses, weak, index, strong=0.1, beta=0.25):
    """Both terms of the paper, anchor by anchor."""
    n, total, anchors = len(x), 0.0, 0
    z = [row / row.norm() for row in x]
    for i in range(n):
        others = [j for j in range(n) if j != i]
        same = [j for j in others if labels[j] == labels[i]]
        near = [j for j in same if subclasses[j] == subclasses[i]]
        views = [j for j in others if index is not None and index[j] == index[i]]
        if not same:
            continue
        anchors += 1
        s = {j: float(z[i] @ z[j]) for j in others}
        if near:
            total -= mean_log_share({j: v / strong for j, v in s.items()}, near, others)
        further = [j for j in same if j not in near] + views
        against = [j for j in others if j not in near or j in views]
        if further:
            total -= beta * mean_log_share({j: v / weak[i] for j, v in s.items()}, further, against)
    return total / anchors if anchors else 0.0


def problem(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * n, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (n,), generator=generator).repeat(2)
    subclasses = torch.randint(0, 2, (n,), generator=generator).repeat(2)
    weak = 0.1 + torch.rand(n, generator=generator, dtype=torch.float64).repeat(2)
    return x, labels, subclasses, weak, torch.arange(n).repeat(2)


@given(st.integers(0, 7), st.booleans(), st.integers(0, 2**31))
@SETTINGS
def test_agrees_with_the_formula(n, with_views, seed):
    x, labels, subclasses, weak, index = problem(n, seed)
    if not with_views:
        index = None
    found = subclass_contrastive_loss(x, labels, subclasses, class_temperature=weak, index=index)
    expected = reference(
        x, labels.tolist(), subclasses.tolist(), weak.tolist(), None if index is None else index.tolist()
    )
    assert math.isclose(float(found), expected, rel_tol=1e-9, abs_tol=1e-9)


def test_gradient():
    x, labels, subclasses, weak, index = problem(4, 0)
    options = {"class_temperature": weak, "index": index}
    assert torch.autograd.gradcheck(
        lambda a: subclass_contrastive_loss(a, labels, subclasses, **options), x.requires_grad_()
    )
    # One class, one subclass, no views: the second term is empty, and its gradient is zero and no NaN.
    same = torch.zeros_like(labels)
    gradient = torch.autograd.grad(subclass_contrastive_loss(x, same, same), x)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(supcon_loss(x, same), x)[0])


def test_without_subclasses_the_first_term_is_supcon():
    x, labels, *_ = problem(6, 1)
    torch.testing.assert_close(subclass_contrastive_loss(x, labels, labels, beta=0.0), supcon_loss(x, labels))


def long_tail(seed=0):
    """A class of 40 in four places, and one of 10."""
    generator = torch.Generator().manual_seed(seed)
    places = 5 * torch.eye(5, 6)
    place = torch.cat([torch.arange(40) % 4, torch.full((10,), 4)])
    x = places[place] + 0.1 * torch.randn(50, 6, generator=generator)
    return x, (place == 4).long(), place


def test_clusters_the_large_class_into_parts_like_the_small_one():
    x, labels, place = long_tail()
    loss = SubclassContrastive(samples=50, dimensions=6, smallest=5, warmup=1, every=2)
    expected = supcon_loss(x, labels)
    torch.testing.assert_close(loss(x, labels, index=torch.arange(50)), expected)
    loss.after_update()
    assert loss.clusterings == 1
    for part in range(5):
        assert len(loss.subclasses[place == part].unique()) == 1
    assert len(loss.subclasses[:40].unique()) == 4
    assert (loss.subclasses[40:] == 0).all()
    # The large class is spread out, and of a higher temperature; the small one keeps its own.
    assert (loss.temperatures[:40] > 0.1).all()
    assert torch.equal(loss.temperatures[40:], torch.full((10,), 0.1))
    found = loss(x, labels, index=torch.arange(50))
    torch.testing.assert_close(
        found,
        subclass_contrastive_loss(
            x, labels, loss.subclasses, class_temperature=loss.temperatures, index=torch.arange(50)
        ),
    )
    torch.testing.assert_close(loss(x, labels), expected)  # of samples without numbers no subclass is known


def test_the_bank_holds_the_mean_of_the_views_and_the_time_is_kept():
    x, labels, _ = long_tail()
    loss = SubclassContrastive(samples=50, dimensions=6, warmup=1, every=2)
    order, count = torch.randperm(50, generator=torch.Generator().manual_seed(0)), []
    for part in order.repeat(4).split(25):
        loss(torch.cat([x[part], 3 * x[part]]), labels[part].repeat(2), index=part.repeat(2))
        loss.after_update()
        count.append(int(loss.clusterings))
    torch.testing.assert_close(loss.bank, 2 * x)
    assert count == [0, 1, 1, 1, 1, 2, 2, 2]


def test_evaluation_and_unlabelled_samples_leave_no_trace():
    loss = SubclassContrastive(samples=4, dimensions=2)
    loss(torch.eye(2), torch.tensor([-1, -2]), index=torch.tensor([0, 1]))
    loss.after_update()
    loss.eval()
    loss(torch.eye(2), torch.tensor([0, 1]), index=torch.tensor([0, 1]))
    loss.after_update()
    assert (loss.bank_labels == -1).all()


def test_what_does_not_fit():
    x, labels = torch.eye(2), torch.tensor([0, 0])
    with pytest.raises(ShapeError, match="subclasses must be"):
        subclass_contrastive_loss(x, labels, torch.tensor([0]))
    with pytest.raises(ShapeError, match="class_temperature must be"):
        subclass_contrastive_loss(x, labels, labels, class_temperature=torch.ones(3))
    with pytest.raises(ConfigError, match="dimensions of the embeddings are not known"):
        SubclassContrastive(samples=2)(x, labels)
    for name in ("samples", "every", "smallest"):
        with pytest.raises(ConfigError, match=f"{name} must be positive"):
            SubclassContrastive(**{"samples": 2, name: 0})
