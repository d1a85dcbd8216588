"""Small networks on frozen features; a smoke budget takes digits for them, so that no data has to be installed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repertoire.claims import Budget
from repertoire.claims.beds import frozen
from repertoire.claims.loss_classification.reject_fixed_predictor import best_threshold, price
from repertoire.claims.loss_metric.dialog2flow import words_of

SMOKE = Budget("smoke")


def test_components_are_those_of_a_singular_value_decomposition():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.arange(6.0, 0, -1))
    found = frozen.components_of(x, 3)(x)
    centred = (x - x.mean(0)).double()
    _, values, vectors = torch.linalg.svd(centred, full_matrices=False)
    expected = centred @ vectors[:3].T / (values[:3].square() / 50).mean().sqrt()
    torch.testing.assert_close(found.abs().double(), expected.abs(), rtol=1e-4, atol=1e-4)
    assert float(found.var(0, unbiased=False).mean()) == pytest.approx(1, abs=1e-4)


def test_photographs_are_drawn_by_the_seed_and_no_row_has_two_roles():
    first, again, other = (frozen.photographs(SMOKE, seed, 20) for seed in (0, 0, 1))
    torch.testing.assert_close(first.x, again.x)
    assert not torch.equal(first.x, other.x)
    assert torch.equal(first.test_x, other.test_x)
    assert first.y.bincount().tolist() == [20] * 10
    rows = {tuple(row) for row in first.x.tolist()}
    assert not rows & {tuple(row) for row in first.val_x.tolist()}
    assert not rows & {tuple(row) for row in first.test_x.tolist()}


def test_each_class_may_have_a_number_of_its_own():
    assert frozen.photographs(SMOKE, 0, range(1, 11)).y.bincount().tolist() == list(range(1, 11))


def test_classes_are_numbered_in_the_order_in_which_they_are_named():
    x, y = frozen.renumbered(torch.arange(5.0), torch.tensor([3, 0, 7, 3, 7]), (7, 3))
    assert x.tolist() == [0, 2, 3, 4]
    assert y.tolist() == [1, 0, 1, 0]


def test_a_seed_draws_what_is_learned_from_and_not_the_test():
    first, other = (frozen.genes(SMOKE, seed) for seed in (0, 1))
    assert torch.equal(first.test_x, other.test_x)
    assert not torch.equal(first.x, other.x)
    whole = frozen.table_rows(frozen._named.get("yeast").splits(SMOKE, 0))
    assert len(first.x) == round(0.8 * len(whole.x))
    assert {tuple(row) for row in first.x.tolist()} <= {tuple(row) for row in whole.x.tolist()}


@pytest.mark.parametrize("unseen", ["alphabets", "characters"])
def test_nobody_learns_from_unseen_characters(unseen: frozen.Unseen):
    rows = frozen.drawings(SMOKE, 0, unseen)
    x, y, test_x, test_y = frozen._drawings(SMOKE, unseen)
    assert not set(y.unique().tolist()) & set(test_y.unique().tolist())
    assert torch.equal(rows.test_x, test_x)
    assert len(rows.x) + len(rows.val_x) == len(x)


def test_every_fourth_character_is_unseen():
    """Digits stand in for characters in a smoke run, each an alphabet of its own."""
    assert frozen._drawings(SMOKE, "characters")[3].unique().tolist() == [3, 7]
    assert frozen._drawings(SMOKE, "alphabets")[3].unique().tolist() == [7, 8, 9]


def test_rows_as_data_keep_their_parts():
    rows = frozen.photographs(SMOKE, 0, 20)
    splits = frozen.splits_of(rows, "rows")
    for part, (x, y) in zip(
        (splits.train, splits.val, splits.test),
        ((rows.x, rows.y), (rows.val_x, rows.val_y), (rows.test_x, rows.test_y)),
        strict=True,
    ):
        torch.testing.assert_close(torch.from_numpy(part.features), x)
        assert part.labels.tolist() == y.tolist()
    assert splits.classes == tuple("0123456789")


def test_directions_of_questions_are_fitted_without_those_of_the_test():
    """Inner products survive where there are as many directions as the words need; 64 pixels stand in for them."""
    rows, names = frozen.questions(SMOKE, 0)
    plain = frozen.table_rows(frozen._named.get("intents").splits(SMOKE, 0))
    assert len(names) == 10
    torch.testing.assert_close(rows.x @ rows.x.T / 64, plain.x @ plain.x.T, rtol=1e-3, atol=1e-3)
    assert rows.test_x.shape == plain.test_x.shape


def test_a_threshold_is_the_cheapest_there_is():
    probability = torch.tensor([0.9, 0.8, 0.7, 0.6])
    assert best_threshold(probability, torch.tensor([False, False, True, False])) == pytest.approx(0.8)
    assert best_threshold(probability, torch.tensor([True, True, True, True])) > 1
    assert price(torch.tensor([True, False]), torch.tensor([False, True])) == pytest.approx(0.1)


def test_intents_are_alike_as_their_names_are():
    z = words_of(["card_lost", "Card lost?", "card_late", "cash_late"])
    alike = z @ z.T
    assert alike[0, 1] == pytest.approx(1)
    assert 0 < alike[0, 2] < 1
    assert alike[0, 3] == 0


def test_a_batch_has_whole_groups_and_no_row_comes_twice():
    labels = torch.tensor([0] * 9 + [1] * 4 + [2] * 3)
    torch.manual_seed(0)
    batches = list(frozen.groups(labels, per_class=4, classes=3)())
    used = torch.cat(batches)
    assert len(used) == len(used.unique()) == 12
    assert [len(batch) for batch in frozen.groups(labels, per_class=4, classes=2)()] == [8]
    for batch in batches:
        assert (labels[batch].view(-1, 4) == labels[batch].view(-1, 4)[:, :1]).all()


def test_what_is_found_again():
    """Ten rows of each of two classes at two points: all is right; at the same point: nothing is retrieved."""
    labels = torch.arange(2).repeat_interleave(10)
    apart = F.one_hot(labels, 2).float()
    assert set(frozen.found_again(apart, labels, "cosine").values()) == {1.0}
    assert frozen.found_again(torch.ones(20, 2), labels, "euclidean")["MAP@R"] == 0


def test_the_rate_falls_along_a_cosine():
    """A gradient of 1 moves Adam by the rate of the step, to rounding, so the end says what the rates were."""
    weight = nn.Parameter(torch.zeros(()))
    frozen.descend([weight], lambda _: weight, lambda: [torch.zeros(1)], epochs=4, rate=0.1)
    expected = sum(0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4))
    assert float(-weight.detach()) == pytest.approx(expected, rel=1e-4)


def test_prototypes_are_the_means_of_their_support():
    support, y = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 1.0]]), torch.tensor([0, 0, 1])
    query = torch.tensor([[1.0, 1.0]])
    expected = F.cross_entropy(-torch.tensor([[1.0, 16.0]]), torch.tensor([0]))
    torch.testing.assert_close(frozen.prototypical(query, torch.tensor([0]), support, y), expected)


def test_precision_leaves_out_labels_that_all_or_none_have():
    targets = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    scores = torch.tensor([[0.1, 0.0, 0.0], [0.9, 0.0, 0.0]])
    assert frozen.mean_precision(scores, targets) == 0.5


def test_shares():
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    found = frozen.shares(logits, torch.tensor([0, 0, 1, 1]))
    assert found["accuracy"] == 0.75
    assert found["balanced accuracy"] == 0.75
    assert found["top-5 accuracy"] == 1
    p = 1 / (1 + math.exp(-2))
    assert found["log-likelihood"] == pytest.approx((3 * math.log(p) + math.log(1 - p)) / 4)
    assert found["calibration error"] == pytest.approx(abs(0.75 - p))


@pytest.mark.parametrize(
    "options",
    [{"loss": "triplet", "nearness": "euclidean"}, {"head": "linear"}, {"loss": "multi-similarity", "noise": 0.5}],
)
def test_a_retrieval_arm_says_all_its_figures(options):
    found = frozen.retrieved(SMOKE, 0, **options)
    assert {"recall at 1", "MAP@R", "nearest mean of five", "validation", "untrained: MAP@R"} <= set(found)
    assert all(0 <= value <= 1 for value in found.values())
