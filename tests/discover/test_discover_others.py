"""The number of classes, tables, pairs, the graph, and what all of them share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_samples
from torch.nn import functional as F

from repertoire.discover import (
    ContrastivePseudo,
    SemiSupervisedKMeans,
    TabularNCD,
    class_number,
    hidden_class_cv,
)
from repertoire.discover._base import reduced
from repertoire.discover._number import _silhouettes
from repertoire.discover._pairs import local_similarity, partners
from repertoire.errors import ConfigError


def blobs(classes: int = 6, each: int = 30, known: int = 3, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(classes).repeat_interleave(each)
    x = 6 * torch.eye(classes, 8)[truth] + torch.randn(len(truth), 8, generator=generator)
    seen = (truth < known) & (torch.arange(len(truth)) % each < each // 2)
    return x, torch.where(seen, truth, -1), truth


@pytest.mark.parametrize("by", ["labelled-rows", "hidden-classes", "silhouette", "prototypes"])
def test_planted_classes_are_counted(by):
    x, y, _ = blobs()
    found = class_number(x, y, by=by)
    assert found.low <= 6 <= found.high
    assert abs(found.count - 6) <= 1
    assert min(found.scores) == 3


def test_the_names_of_unknown_classes_cannot_matter():
    """Labels are all that is given: whatever the others are called, the estimate is the same."""
    x, y, _ = blobs()
    again = class_number(x.double(), y.tolist())
    assert again == class_number(x, y)
    with pytest.raises(ConfigError, match="most must be 3 or more"):
        class_number(x, y, most=2)


def test_silhouettes_are_those_of_scikit_learn():
    x = blobs(3, 10)[0].double()
    groups = torch.arange(30) % 4
    groups[groups == 3] = 2
    groups[0] = 3  # a row alone
    found = _silhouettes(torch.cdist(x, x), groups, groups)
    np.testing.assert_allclose(found, silhouette_samples(x, groups), atol=1e-5)


def test_components_have_a_mean_variance_of_one_and_keep_distances():
    x, _, _ = blobs()
    rows = reduced(x, 8)
    assert float(rows.var(0, correction=0).mean()) == pytest.approx(1, rel=1e-4)
    ratio = torch.cdist(rows, rows) / torch.cdist(x, x).clamp_min(1e-9)
    off = ~torch.eye(len(x), dtype=torch.bool)
    torch.testing.assert_close(ratio[off], ratio[off].mean().expand(int(off.sum())), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(reduced(x + 5, 3), reduced(x, 3), rtol=1e-3, atol=1e-3)


def test_local_similarity_is_that_of_a_loop_over_patches():
    patches = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    found = local_similarity(patches, patches)
    for i in range(4):
        for j in range(4):
            best = [max(float(F.cosine_similarity(p, q, 0)) for q in patches[j]) for p in patches[i]]
            assert float(found[i, j]) == pytest.approx(sum(best) / 3, rel=1e-5)


def test_partners_have_both_votes_and_are_never_forced():
    whole = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]))
    assert partners(whole, whole[:, None], 1, local=True).tolist() == [1, 0, 3, 2]
    # As wholes 0 is nearest to 1, patch by patch to 2: there is no partner with both votes.
    patches = torch.stack([torch.eye(2), torch.tensor([[1.0, 1], [1, 1]]), torch.eye(2).flip(0), torch.eye(2)[[0, 0]]])
    means = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.2], [0.0, -1.0]])
    found = partners(means, patches, 1, local=True)
    assert found[0] == 0
    assert partners(means, patches, 1, local=False)[0] == 1


def test_patches_are_taken_and_a_row_of_one_patch_is_a_row():
    x, y, _ = blobs(4, 16, 2)
    options = {"classes": 4, "epochs": 4, "hidden": 8}
    rows = ContrastivePseudo(**options).fit_predict(x, y)
    np.testing.assert_array_equal(ContrastivePseudo(**options).fit_predict(x[:, None], y), rows)
    many = ContrastivePseudo(**options).fit(torch.stack([x, x + 0.1], 1), y)
    assert len(many.labels_) == len(x)


def test_hidden_classes_choose_what_separates_classes():
    x, y, _ = blobs(known=4)
    found = hidden_class_cv(SemiSupervisedKMeans(), x, y, {"components": [1, 8]}, folds=2)
    assert found.best == {"components": 8}
    assert [options["components"] for options, _ in found.scores] == [1, 8]
    assert found.score == max(score for _, score in found.scores)


def test_what_is_truly_new_decides_no_hyper_parameter():
    x, y, _ = blobs(known=4)
    grid = {"components": [1, 3]}
    poisoned = torch.where(y[:, None] < 0, 100 * torch.randn(x.shape), x)
    ours, theirs = (hidden_class_cv(SemiSupervisedKMeans(), rows, y, grid, folds=2) for rows in (x, poisoned))
    assert ours == theirs


def test_a_search_that_cannot_be_made_is_refused():
    x, y, _ = blobs()
    with pytest.raises(ConfigError, match="no option 'width'"):
        hidden_class_cv(SemiSupervisedKMeans(), x, y, {"width": [1]}, folds=2)
    with pytest.raises(ConfigError, match="2 folds of 3 known classes leave fewer than two"):
        hidden_class_cv(SemiSupervisedKMeans(), x, y, {"components": [1]}, folds=2)
    with pytest.raises(ConfigError, match="grid"):
        hidden_class_cv(SemiSupervisedKMeans(), x, y, {})


def test_scales_of_columns_do_not_matter_in_a_table():
    x, y, _ = blobs(4, 16, 2)
    scales = 10.0 ** torch.arange(-3, 5)
    options = {"classes": 4, "epochs": 3, "hidden": 8}
    ours, theirs = (TabularNCD(**options).fit(rows, y).latent_ for rows in (x, x * scales))
    np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-3)


def test_groups_are_numbered_from_the_largest_on():
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([0] * 20 + [1] * 20 + [2] * 10 + [3] * 30)
    x = 8 * torch.eye(4)[truth] + torch.randn(80, 4, generator=generator)
    y = torch.where(truth < 2, truth, -1)
    found = SemiSupervisedKMeans(classes=4).fit_predict(x, y)
    assert (found[truth == 3] == 2).all()
    assert (found[truth == 2] == 3).all()


@pytest.mark.parametrize("pairs", [1, 70, 10**6])
def test_partners_are_the_same_however_many_rows_are_compared_at_once(pairs, monkeypatch):
    """A matrix of all pairs would take 10 GB of 50,000 rows."""
    patches = torch.randn(30, 4, 6, generator=torch.Generator().manual_seed(0))
    whole, near = patches.mean(1), local_similarity(patches, patches)
    votes = [torch.nn.functional.normalize(whole) @ torch.nn.functional.normalize(whole).T, (near + near.T) / 2]
    expected = []
    for i in range(30):
        own = [vote[i].clone().index_fill(0, torch.tensor(i), -9.0) for vote in votes]
        both = set(own[0].topk(8).indices.tolist()) & set(own[1].topk(8).indices.tolist())
        expected.append(max(both, key=lambda j: float(own[0][j] + own[1][j]), default=i))
    monkeypatch.setattr("repertoire.discover._pairs._PAIRS", pairs)
    assert partners(whole, patches, 8, local=True).tolist() == expected
