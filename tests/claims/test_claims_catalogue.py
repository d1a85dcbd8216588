"""What must be true of every claim; that each runs is shown by `python -m repertoire.claims --smoke`."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

import repertoire
from repertoire import claims, papers
from repertoire.claims import Budget, Claim, _again, _evidence
from repertoire.claims._training import embeddings, probe, train
from repertoire.data import load
from repertoire.statistics import contrasts, decide

ENTRIES = claims.entries()


def test_the_first_papers_have_claims() -> None:
    first = {"supcon", "mrl", "grad-cam", "sam", "model-soups", "align-uniform", "rfs"}
    assert first <= {claim.slug for claim in ENTRIES}


@pytest.mark.parametrize("claim", ENTRIES, ids=lambda claim: claim.slug)
def test_a_claim_belongs_to_a_paper_and_says_what_it_checks(claim: Claim) -> None:
    card = papers.get(claim.slug)
    family, stem = claim.function.__module__.split(".")[-2:]
    assert (family, stem) == (card.family.replace("-", "_"), claim.slug.replace("-", "_"))
    assert card.components, "a claim is about something that can be performed"
    assert claim.statement.endswith(".")
    assert all((claim.metric, *claim.arms, claim.data, claim.function.__doc__))


@pytest.mark.parametrize("claim", ENTRIES, ids=lambda claim: claim.name)
def test_a_claim_of_more_accuracy_names_the_smallest_gain_worth_having(claim: Claim) -> None:
    if claim.kind == "better" and claim.strict and "accuracy" in claim.metric:
        assert claim.threshold != 0, "more than 0 is a claim that no number of seeds tells from no gain"


@pytest.mark.parametrize("claim", ENTRIES, ids=lambda claim: claim.name)
def test_stored_evidence_follows_from_its_own_figures(claim: Claim) -> None:
    for budget in ("small", "full"):
        found = claims.evidence(claim.slug, budget, part=claim.part)
        if found is None:
            continue
        sign = 1.0 if found.higher_is_better or found.kind == "identity" else -1.0
        rows = [[sign * value for value in values] for values in found.values]
        said = decide(
            contrasts(found.kind, rows, found.points),
            found.threshold,
            kind=found.kind,
            strict=found.strict,
            overlap=found.overlap,
            exact=found.exact,
            clusters=[[sign * value for value in row] for row in found.units],
        )
        assert (said.mean, said.interval) == (pytest.approx(found.mean), pytest.approx(found.interval))
        assert found.verdict in (said.verdict, "no answer", "undecided")
        # The guards too, which are not stored: what the claim makes of the same figures now.
        seeds = [_again.measured_of(found, claim, k) for k in range(len(found.seeds))]
        whole = _evidence.decide(claim, Budget(budget), seeds)
        assert found.verdict == whole.verdict or claims.freshness(found, claim).state == "stale", whole.reason
        # Of an identity, what counts is its largest error.
        expected = max(map(abs, found.differences)) if found.kind == "identity" else statistics.mean(found.differences)
        assert said.mean == pytest.approx(expected)
        # A threshold that is moved after the measurement makes it stale.
        assert found.threshold == claim.threshold or claims.freshness(found, claim).state == "stale"


def test_all_evidence_belongs_to_a_claim_and_has_a_footprint() -> None:
    assert {found.name for found in claims.stored()} <= {claim.name for claim in ENTRIES}
    for found in claims.stored():
        assert set(found.footprint) == {"claim", "components", "trunk"}, found.name


def test_the_whole_table_is_made() -> None:
    whole = claims.table()
    assert [row.claim for row in whole.rows] == [claim.name for claim in ENTRIES]
    assert all(row.changed for row in whole.rows if row.note == "stale")
    assert whole.to_csv().count("\n") == len(ENTRIES) + 1


def test_training_in_memory_is_what_fit_does(tmp_path: Path) -> None:
    options = {"epochs": 1, "backbone": "convnet:width=4,depth=2", "seed": 3, "device": "cpu"}
    method = train(load("digits", seed=3), **options)
    run = repertoire.train.fit("digits", out=tmp_path / "run", **options)
    ours, theirs = method.model.state_dict(), run.model.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)


def test_a_probe_reads_out_what_is_there() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    informative = np.eye(3)[labels] + 0.1 * random.normal(size=(300, 3))
    assert probe(informative[:200], labels[:200], informative[200:], labels[200:]) > 0.98
    noise = random.normal(size=(300, 3))
    assert probe(noise[:200], labels[:200], noise[200:], labels[200:]) < 0.6


def test_embeddings_are_in_the_order_of_the_images() -> None:
    splits = load("digits", seed=0)
    method = train(splits, epochs=1, backbone="convnet:width=4,depth=2", seed=0)
    once = embeddings(method, splits.val)
    order = np.random.default_rng(0).permutation(len(splits.val))
    np.testing.assert_allclose(embeddings(method, splits.val.subset(order)), once[order], rtol=1e-4, atol=1e-5)
