"""Every claim says what its arms have to beat before a difference between them counts, and chance is not enough."""

from __future__ import annotations

import pytest

from repertoire.claims import Claim, entries
from repertoire.claims._footprint import Place, library

_BEDS = "repertoire.claims.beds"

MEASURED = {
    (f"{_BEDS}.raw", None),
    (f"{_BEDS}._named", "neighbour_accuracy"),
    (f"{_BEDS}.few_labels", "trivial"),
    (f"{_BEDS}.frozen", "retrieved"),
    (f"{_BEDS}.learned", None),
    (f"{_BEDS}.ssl_photographs", "raw"),
    (f"{_BEDS}.ssl_photographs", "untrained"),
}
"""What measures an answer without training on the same data: modules, or names in them."""


def measures_a_trivial_answer(places: set[Place]) -> bool:
    return any(place in MEASURED or (place[0], None) in MEASURED for place in places)


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_a_claim_measures_what_its_arms_must_beat_or_says_why_not(entry: Claim):
    """Raw inputs, random weights, features as they come; a majority class, or chance, says nothing of learning."""
    if entry.exact or entry.kind == "identity":
        assert entry.learned is None
        return
    places = library().claim_places(entry.function.__module__, entry.function.__qualname__)
    if not (entry.learned is not None and measures_a_trivial_answer(places)):
        assert len(entry.guard.split()) >= 3, (
            "give floor=, or say in guard= what the trivial answer is, or why there is none"
        )
    if entry.learned_by == "best":
        assert entry.guard, "say in guard= why an arm may fail"


def test_guards_are_phrases_that_end_a_sentence():
    for entry in entries():
        assert not entry.guard.endswith((".", ",")), entry.name
        assert entry.guard == entry.guard.strip(), entry.name
        assert not entry.guard[:1].isupper() or entry.guard[:2].isupper() or entry.guard.startswith("SimCLR"), (
            entry.name
        )
