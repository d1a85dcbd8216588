"""The harness: seeds, budgets, evidence, staleness, failures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import _toy_claims as toys
import pytest
import torch

from repertoire import claims
from repertoire.claims import Budget, Claim, ClaimError, Measured, _claim, _evidence, _harness
from repertoire.claims.beds import disturbed_images
from repertoire.errors import ConfigError, DataError, RunError, UnknownName

TOYS = (toys.better, toys.smaller, toys.failing, toys.not_a_number, toys.killed, toys.unknown)
for toy in TOYS:  # other tests in this process must not find them
    _claim._REGISTRY.pop(toy.slug, None)


@pytest.fixture(autouse=True)
def _only_toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The toys alone are registered, and evidence goes elsewhere."""
    own = {c.slug: c for c in TOYS}
    monkeypatch.setattr(_claim, "_REGISTRY", own)
    monkeypatch.setattr(_claim, "entries", lambda: [own[slug] for slug in sorted(own)])
    monkeypatch.setattr(_harness, "entries", lambda: [own[slug] for slug in sorted(own)])
    monkeypatch.setattr(_evidence, "FOLDER", tmp_path)


def test_a_claim_is_measured_decided_and_stored(tmp_path: Path) -> None:
    lines: list[str] = []
    result = claims.run("toy-better", "small", progress=lines.append)
    assert result.verdict == "holds"
    assert result.seeds == [0, 1, 2, 3, 4]
    assert len(lines) == 5
    assert "toy-better seed 5/5: value 2." in lines[-1]
    assert result.baseline_values == [1.0] * 5
    assert result.differences == [m - b for m, b in zip(result.method_values, result.baseline_values, strict=True)]
    assert len(set(result.extra["noise"])) == 5  # each seed is its own
    assert result.extra["work"] == [2.0] * 5
    low, high = result.interval or (0, 0)
    assert low < result.mean < high
    assert set(result.versions) == {"python", "torch", "numpy", "repertoire"}
    assert "one thread a seed" in result.machine
    assert claims.evidence("toy-better") == claims.evidence("toy-better", "small") == result
    assert claims.evidence("toy-better", "full") is None
    assert claims.stored() == [result]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy-better.small.json"]
    assert json.loads((tmp_path / "toy-better.small.json").read_text())["verdict"] == "holds"


def test_runs_repeat_bit_for_bit_on_one_thread() -> None:
    before = torch.get_num_threads()
    first, second = (claims.run("toy-better", "small", store=False) for _ in range(2))
    assert first.method_values == second.method_values
    assert first.extra["threads"] == [1.0] * 5
    assert torch.get_num_threads() == before


def test_processes_change_nothing_and_failures_come_back_from_them(tmp_path: Path) -> None:
    alone = claims.run("toy-better", "small", store=False)
    chosen = [toys.failing, toys.better, toys.smaller, toys.unknown]
    outcomes = list(claims.run_all(chosen, "small", workers=2))
    reasons = sorted(str(outcome) for outcome in outcomes if isinstance(outcome, ClaimError))
    assert len(outcomes) == 4
    assert "ZeroDivisionError: nothing to divide by" in reasons[0]
    assert "did you mean 'thing'" in reasons[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy-better.small.json", "toy-smaller.small.json"]
    together = claims.evidence("toy-better")
    assert together is not None
    assert together.method_values == alone.method_values


def test_a_worker_that_is_killed() -> None:
    (outcome,) = claims.run_all([toys.killed], "small", workers=2)
    assert isinstance(outcome, ClaimError)
    assert "toy-killed" in str(outcome)


def test_smaller_can_be_better(tmp_path: Path) -> None:
    result = claims.run("toy-smaller", "small")
    assert result.verdict == "does not hold"
    assert result.differences == pytest.approx([-1.0, -0.99, -0.98])


def test_smoke_decides_nothing_and_is_not_kept(tmp_path: Path) -> None:
    result = claims.run("toy-better", "smoke")
    assert (len(result.seeds), result.interval, result.verdict) == (1, None, "inconclusive")
    assert list(tmp_path.iterdir()) == []


def test_a_seed_that_fails_is_reported_and_nothing_is_stored(tmp_path: Path) -> None:
    with pytest.raises(ClaimError, match="'toy-failing' failed at seed 2: ZeroDivisionError: nothing to divide by"):
        claims.run("toy-failing", "small")
    with pytest.raises(ClaimError, match="'method' is nan"):
        claims.run("toy-nan", "small")
    assert list(tmp_path.iterdir()) == []


def test_one_failure_does_not_stop_the_others() -> None:
    outcomes = list(claims.run_all([toys.failing, toys.smaller], "small"))
    assert isinstance(outcomes[0], ClaimError)
    assert isinstance(outcomes[1], claims.Evidence)


def test_evidence_is_missing_then_fresh_then_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_harness, "entries", lambda: [toys.better])
    assert claims.missing_or_stale("small") == [toys.better]
    claims.run("toy-better", "small")
    assert claims.missing_or_stale("small") == []
    changed = dataclasses.replace(toys.better, threshold=0.5)
    monkeypatch.setattr(_harness, "entries", lambda: [changed])
    assert claims.missing_or_stale("small") == [changed]


def _helper() -> float:
    return 1.0


def _calls_helper(budget: Budget, seed: int) -> Measured:
    return Measured(*[_helper() for _ in range(2)])


def test_the_fingerprint_covers_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    check = dataclasses.replace(toys.better, function=_calls_helper)
    before = check.fingerprint
    assert before == check.fingerprint != toys.better.fingerprint

    def _helper() -> float:
        return 2.0

    monkeypatch.setitem(globals(), "_helper", _helper)
    assert check.fingerprint != before


def test_the_fingerprint_covers_helpers_from_other_families(monkeypatch: pytest.MonkeyPatch) -> None:
    check = dataclasses.replace(toys.better, function=_calls_helper)
    monkeypatch.setitem(globals(), "_helper", disturbed_images.disturbed_images)
    before = check.fingerprint
    monkeypatch.setitem(globals(), "_helper", disturbed_images.new_method)
    assert check.fingerprint != before


def test_damaged_evidence_is_named(tmp_path: Path) -> None:
    path = claims.run("toy-better", "small").write()
    whole = path.read_text()
    for text in ("", whole[: len(whole) // 2], "[]", "{}", whole.replace('"format": 1', '"format": 99')):
        path.write_text(text)
        with pytest.raises(DataError, match="toy-better"):
            claims.evidence("toy-better")


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot store"):
        claims.run("toy-smaller", "small", folder=tmp_path / "file" / "below")


def test_unknown_names() -> None:
    with pytest.raises(UnknownName, match="did you mean 'toy-better'"):
        claims.run("toy-bettter")
    with pytest.raises(UnknownName, match="did you mean 'small'"):
        claims.run("toy-better", "smal")  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="full"):
            claims.run("toy-better", "full")


def test_a_claim_needs_seeds_and_a_paper_of_its_own() -> None:
    options = {"statement": "", **toys.OPTIONS}
    with pytest.raises(ValueError, match="small >= 3"):
        claims.claim("toy-other", seeds={"small": 2}, **options)
    with pytest.raises(ValueError, match="already has a claim"):
        claims.claim("toy-better", **options)(_calls_helper)
    assert isinstance(toys.better, Claim)
