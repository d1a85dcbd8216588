"""Named beds: what a claim gets at each budget, and the trivial answers that it must beat."""

from __future__ import annotations

import ast

import numpy as np
import pytest
import torch

from repertoire import registry
from repertoire.claims import Budget, Claim, ClaimError, Measured, _claim, beds, claim, entries
from repertoire.claims._footprint import library
from repertoire.claims.beds import _named
from repertoire.claims.beds.frozen import Rows
from repertoire.claims.beds.learned import must_have_learned
from repertoire.claims.beds.raw import raw_accuracy, raw_accuracy_of_rows
from repertoire.data import load
from repertoire.errors import DataError, UnknownName


@pytest.mark.parametrize("bed", beds.NAMED.values(), ids=lambda bed: bed.name)
def test_a_smoke_run_needs_none_of_the_data(bed: beds.Bed, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("REPERTOIRE_DATA", raising=False)
    splits = bed.splits(Budget("smoke"), 0)
    kinds = {"images": "classes", "vectors": "classes", "several": "labels"}
    assert (splits.kind, splits.train.noun) == (kinds[bed.form], "image" if bed.form == "images" else "vector")
    if bed.size is not None:
        assert splits.train.shape[1:] == (bed.size, bed.size)
    for spec in (bed.small, bed.full):
        assert registry.parse(spec).name in registry.names("data")


def test_a_bed_is_found_under_its_own_name():
    """Footprints find the definition of a bed by the name that claims call it by."""
    assert {name for name, found in vars(_named).items() if isinstance(found, beds.Bed)} == {
        name.upper().replace("-", "_") for name in beds.NAMED
    }


WITH_A_TEST_PART = {"FASHION_MNIST", "CIFAR10", "CIFAR10_LITE0", "INTENTS", "REVIEWS"}
"""Beds whose rows for the test are never learned from, whatever the seed."""


def _divides_by_the_seed(node: ast.stmt) -> bool:
    """Whether there is `bed.splits(budget, seed)` in it, or `features(name, budget, seed)`."""
    calls = [inner for inner in ast.walk(node) if isinstance(inner, ast.Call)]
    named = [call for call in calls if getattr(call.func, "attr", "") in ("splits", "features")]
    values = [value for call in named for value in (*call.args, *(word.value for word in call.keywords))]
    return any(isinstance(value, ast.Name) and value.id == "seed" for value in values)


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_seeds_that_divide_one_set_anew_are_corrected_for_what_they_share(entry: Claim):
    """What one seed learns from, another tests on: the spread over seeds says too little of another set."""
    source = library()
    divided = {name.upper().replace("-", "_") for name in beds.NAMED} - WITH_A_TEST_PART
    for place in source.claim_places(entry.function.__module__, entry.function.__qualname__):
        module = source.module(place[0])
        assert module is not None
        if any(_divides_by_the_seed(node) for node in module.definitions[place[1]]):
            reached = {name for _, name in source.closure([place], lambda other: other == _named.__name__)}
            assert entry.overlap > 0 or not reached & divided, (place, reached & divided)


def test_that_check_finds_what_it_is_for():
    source = library()
    found = {
        place[1]
        for entry in entries()
        for place in source.claim_places(entry.function.__module__, entry.function.__qualname__)
        if any(map(_divides_by_the_seed, source.module(place[0]).definitions[place[1]]))  # type: ignore[union-attr]
    }
    assert {"gb_nn", "grownet", "letters", "scl_relu_geometry", "snnet"} <= found


def test_what_is_not_here_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("REPERTOIRE_DATA", raising=False)
    with pytest.raises(DataError, match="'omniglot' is not here"):
        beds.get("omniglot").splits(Budget("small"), 0)
    with pytest.raises(UnknownName, match="did you mean 'omniglot'"):
        beds.get("omnigloth")


def test_data_of_the_users_own_takes_the_place_of_a_bed():
    splits = beds.get("omniglot").splits(Budget("small", data="digits"), 0)
    assert (splits.source, splits.train.size) == ("digits", (8, 8))


def test_features_keep_the_division():
    plain, frozen = load("digits", seed=3), beds.features("mnist5k", Budget("smoke"), 3)
    assert frozen.train.noun == "vector"
    np.testing.assert_array_equal(frozen.test.labels, plain.test.labels)


def test_trivial_answers():
    splits = load("digits")
    assert beds.majority(splits.test) == splits.test.counts().max() / len(splits.test)
    assert beds.neighbour_accuracy(splits.train, splits.test) > 0.95


def test_raw_accuracy_is_that_of_the_best_rule_without_features():
    splits = load("digits")
    neighbours = beds.neighbour_accuracy(splits.train, splits.test)
    assert raw_accuracy(splits) == pytest.approx(neighbours), "of digits these are the best of the three"
    x = torch.tensor([0.0, 1.0, 10.0, 11.0, 0.3, 1.3, 10.3, 11.3, 0.6, 1.6, 10.6, 11.6])[:, None]
    y, test = torch.tensor([0, 0, 1, 1]).repeat(3), torch.tensor([[0.5], [0.2], [9.0]])
    rows = Rows(x, y, x[:0], y[:0], test, torch.tensor([0, 0, 1]))
    assert raw_accuracy_of_rows(rows) == 1.0
    wrong = rows._replace(test_y=torch.tensor([0, 1, 0]))
    assert raw_accuracy_of_rows(wrong) == pytest.approx(2 / 3)  # of the most frequent class
    assert raw_accuracy_of_rows(wrong, balanced=True) == 0.5


def test_a_network_that_does_not_beat_raw_inputs_ends_the_measurement():
    for accuracy in (0.74, 0.8, float("nan")):
        with pytest.raises(ClaimError, match=r"the teacher scores .* the 0\.800 of raw inputs .* learned nothing"):
            must_have_learned(Budget("small"), accuracy, 0.8, "the teacher")
        must_have_learned(Budget("smoke"), accuracy, 0.8)
    must_have_learned(Budget("full"), 0.81, 0.8)


def test_a_claim_on_a_named_bed_has_its_words_and_its_tier():
    options = {"statement": "It is.", "metric": "accuracy", "method": "a", "baseline": "b"}
    check = claim("bed-test", bed="fashion-mnist", **options)(lambda budget, seed: Measured(1.0))
    _claim._REGISTRY.pop("bed-test")
    assert (check.tier, check.data) == ("real, small", "Fashion-MNIST, 10,000 photographs")
