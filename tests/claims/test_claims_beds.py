"""Named beds: what a claim gets at each budget, and the trivial answers that it must beat."""

from __future__ import annotations

import numpy as np
import pytest

from repertoire import registry
from repertoire.claims import Budget, Measured, _claim, beds, claim
from repertoire.claims.beds import _named
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


def test_a_claim_on_a_named_bed_has_its_words_and_its_tier():
    options = {"statement": "It is.", "metric": "accuracy", "method": "a", "baseline": "b"}
    check = claim("bed-test", bed="fashion-mnist", **options)(lambda budget, seed: Measured(1.0))
    _claim._REGISTRY.pop("bed-test")
    assert (check.tier, check.data) == ("real, small", "Fashion-MNIST, 10,000 photographs")
