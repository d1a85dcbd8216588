"""The harness: looks, budgets, guards, evidence, failures, cost."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import _toy_claims as toys
import pytest
import torch

from repertoire import claims, papers
from repertoire.claims import Budget, Claim, ClaimError, Measured, _claim, _harness
from repertoire.claims._evidence import decide
from repertoire.errors import ConfigError, DataError, RunError, UnknownName

for toy in toys.TOYS:  # other tests in this process must not find them
    _claim._REGISTRY.pop(toy.name, None)


@pytest.fixture(autouse=True)
def _only_toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The toys alone are registered, and evidence goes elsewhere."""
    own = {c.name: c for c in toys.TOYS}
    monkeypatch.setattr(_claim, "_REGISTRY", own)
    for module in (_claim, _harness):
        monkeypatch.setattr(module, "entries", lambda: [own[name] for name in sorted(own)])
    monkeypatch.setenv("REPERTOIRE_EVIDENCE", str(tmp_path))


def test_a_claim_is_measured_decided_and_stored(tmp_path: Path) -> None:
    lines: list[str] = []
    result = claims.run("toy-better", "small", progress=lines.append)
    assert result.verdict == "holds"
    assert result.seeds == [0, 1, 2, 3, 4]
    assert len(lines) == 5
    assert "toy-better seed 4 of 5: value 2." in lines[-1]
    assert [row[1] for row in result.values] == [1.0] * 5
    assert result.differences == [m - b for m, b in result.values]
    assert len(set(result.extra["noise"])) == 5  # each seed is its own
    assert result.extra["work"] == [2.0] * 5
    low, high = result.interval or (0, 0)
    assert low < result.mean < high
    assert set(result.versions) == {"python", "torch", "numpy", "repertoire"}
    assert "one thread a seed" in result.machine
    assert claims.evidence("toy-better", folder=tmp_path) == result
    assert claims.evidence("toy-better", "full", folder=tmp_path) is None
    assert claims.stored(tmp_path) == [result]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy-better.small.json"]
    assert json.loads((tmp_path / "toy-better.small.json").read_text())["verdict"] == "holds"


def test_evidence_of_a_user_never_goes_into_the_package() -> None:
    before = set(papers._evidence.FOLDER.iterdir())
    claims.run("toy-better", "small")
    assert set(papers._evidence.FOLDER.iterdir()) == before


def test_what_the_first_look_leaves_open_is_looked_at_twice_more(tmp_path: Path) -> None:
    result = claims.run("toy-noisy", "small")
    assert (result.verdict, len(result.seeds)) == ("undecided", 20)
    assert result.smallest is not None
    assert "undecided on none (drawn data)" in result.sentence


def test_no_more_seeds_are_begun_than_can_be_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def dear(claim: Claim, budget: Budget, seed: int) -> _harness.Timed:
        return _harness.Timed(claim(budget, seed), 150.0, frozenset())

    monkeypatch.setattr(_harness, "_measure", dear)
    result = claims.run("toy-noisy", "small")
    assert (result.verdict, len(result.seeds), result.seconds) == ("undecided", 5, 750.0)
    assert "10 seeds would take more than 20 CPU minutes" in result.reason


def test_what_cost_too_much_is_not_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_harness, "_measure", lambda c, b, s: _harness.Timed(c(b, s), 300.0, frozenset()))
    with pytest.raises(ClaimError, match="took 25 minutes of CPU time, and 20 are allowed"):
        claims.run("toy-better", "small")
    assert list(tmp_path.iterdir()) == []
    assert claims.run("toy-better", "small", store=False).seconds == 1500


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("toy-weak", "theirs scores 0.35, which does not beat the trivial answer's 0.3 by 0.1"),
        ("toy-full", "theirs scores 0.97 of 1, which leaves no room for an effect of 0.05"),
    ],
)
def test_a_failed_bed_is_no_answer(name: str, reason: str) -> None:
    result = claims.run(name, "small", store=False)
    assert (result.verdict, result.reason, result.p) == ("no answer", reason, 1.0)
    assert "the bed failed" in result.sentence


def test_arms_that_are_one_computation_give_no_answer() -> None:
    check = dataclasses.replace(toys.better, threshold=0.0, strict=False)
    same = [Measured(0.5 + seed / 10, 0.5 + seed / 10) for seed in range(5)]
    assert "are one computation here" in check.failed_bed(same)
    assert check.failed_bed(same[:1]) == "", "one seed may agree by chance"
    assert check.failed_bed([*same[:4], Measured(0.9, 0.9 + 1e-12)]) == ""
    assert dataclasses.replace(check, exact=True).failed_bed(same) == ""
    three = dataclasses.replace(check, kind="ordering", arms=("a", "b", "c"))
    assert "b and c score the same" in three.failed_bed([Measured.of([0.1 * s, 0.5 + s, 0.5 + s]) for s in range(5)])


def test_a_guard_needs_the_trivial_answer() -> None:
    check = dataclasses.replace(toys.weak, trivial=None)
    with pytest.raises(ClaimError, match="does not measure it"):
        check.failed_bed([Measured(0.9, 0.8)])
    assert check.failed_bed([Measured(0.9, 0.8, trivial=0.1)]) == ""
    down = dataclasses.replace(check, higher_is_better=False)
    assert "ours scores 0.9" in down.failed_bed([Measured(0.9, 0.1, trivial=0.5)])


def test_a_floor_is_measured_apart_from_the_arms() -> None:
    whole = dataclasses.replace(toys.weak, trivial=None, floor=lambda budget, seed: (200 + seed) / 1000)
    measured = whole(Budget("small"), 5)
    assert (measured, measured.trivial) == (dataclasses.replace(toys.weak(Budget("small"), 5), trivial=0.205), 0.205)
    assert whole.failed_bed([measured]) == ""
    assert whole.failed_bed([dataclasses.replace(measured, trivial=0.3)]).startswith("theirs scores 0.35")
    assert dataclasses.replace(whole, draws=4).floor_of(Budget("small"), 5) == pytest.approx(0.3215)
    assert dataclasses.replace(whole, draws=4).floor_of(Budget("smoke"), 5) == pytest.approx(0.205)
    assert toys.weak.floor_of(Budget("small"), 5) is None


def test_one_arm_may_be_enough_where_the_claim_is_about_what_makes_the_other_fail() -> None:
    either = dataclasses.replace(toys.weak, learned_by="best")
    assert either.failed_bed([Measured(0.2, 0.5)]) == either.failed_bed([Measured(0.5, 0.2)]) == ""
    assert either.failed_bed([Measured(0.2, 0.35)]).startswith("theirs scores 0.35, which does not beat")
    down = dataclasses.replace(either, higher_is_better=False)
    assert down.failed_bed([Measured(0.15, 0.9)]) == ""
    assert down.failed_bed([Measured(0.25, 0.9)]).startswith("ours scores 0.25, which does not beat")


def test_an_arm_that_beats_the_trivial_answer_within_the_noise_decides_nothing() -> None:
    check = dataclasses.replace(toys.weak, learned=0.0, trivial=0.5, threshold=0.0)
    noisy = [Measured(0.9 + 0.01 * seed, 0.5 + 0.1 * (-1) ** seed) for seed in range(5)]
    assert check.failed_bed(noisy) == ""
    assert check.doubtful_bed(noisy) == "5 seeds leave open whether theirs beats the trivial answer: 0.52 against 0.5"
    found = decide(check, Budget("small"), noisy)
    assert (check.decide(noisy).verdict, found.verdict, found.p) == ("holds", "undecided", 1.0)
    assert dataclasses.replace(check, learned_by="best").doubtful_bed(noisy) == ""
    assert dataclasses.replace(check, exact=True).doubtful_bed(noisy) == ""
    assert dataclasses.replace(check, learned=None).doubtful_bed(noisy) == ""
    clear = [Measured(0.9, 0.55 + 0.01 * seed) for seed in range(5)]
    assert check.doubtful_bed(clear) == ""
    assert decide(check, Budget("small"), clear).verdict == "holds"
    # Seeds that divide one set anew say less than as many that do not.
    wide = [Measured(0.9, 0.52 + 0.02 * seed) for seed in range(5)]
    assert check.doubtful_bed(wide) == ""
    assert dataclasses.replace(check, overlap=1.0).doubtful_bed(wide)
    down = dataclasses.replace(check, higher_is_better=False)
    assert down.doubtful_bed([Measured(0.1, 1 - m.baseline) for m in noisy]).endswith("0.48 against 0.5")


def test_a_reader_is_told_what_the_arms_have_to_beat() -> None:
    assert toys.better.asked() == ""
    assert dataclasses.replace(toys.better, guard="none: nothing is learned").asked() == (
        "No trivial answer is asked for: nothing is learned."
    )
    assert dataclasses.replace(toys.better, guard="the rival is the trivial answer").asked() == (
        "What guards the comparison: the rival is the trivial answer."
    )
    before = "Before a difference counts, the mean of"
    noise = "and by more than the noise of the seeds."
    assert toys.weak.asked() == (
        f"{before} every arm compared has to beat 0.3 by 0.1 or more, {noise} That is the score of the trivial answer "
        "that is measured beside them."
    )
    floor = dataclasses.replace(toys.weak, trivial=None, floor=lambda budget, seed: 0.2, learned_by="best", learned=0.0)
    told = f"{before} the best arm compared has to beat 0.2, {noise} That is the score of the inputs as they come (the"
    assert floor.asked([0.1, 0.3]).startswith(told)
    assert dataclasses.replace(floor, guard="random weights").asked() == (
        f"{before} the best arm compared has to beat random weights, {noise}"
    )


def test_the_other_kinds() -> None:
    same = claims.run("toy-weak:beside", "small", store=False)
    assert (same.verdict, same.part, same.name) == ("holds", "beside", "toy-weak:beside")
    equal = claims.run("toy-identity", "small", store=False)
    assert (equal.verdict, equal.seeds, equal.arms) == ("holds", [0], ["ours"])
    more = claims.run("toy-trend", "small", store=False)
    assert (more.verdict, more.method, more.baseline) == ("holds", "four", "one")
    assert more.differences == pytest.approx([0.1] * 5, abs=0.002)


def test_images_are_kept_where_they_are_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(budget: Budget, seed: int) -> Measured:
        units = [0.1 + 0.01 * ((7 * seed + i) % 5) for i in range(30)]
        return Measured(sum(units) / 30, 0.0, units=units)

    monkeypatch.setitem(_claim._REGISTRY, "toy-better", dataclasses.replace(toys.better, function=looked))
    result = claims.run("toy-better", "small", store=False)
    assert (result.verdict, [len(row) for row in result.units]) == ("holds", [30] * 5)
    assert result.interval is not None
    assert 0.1 < result.interval[0] < result.mean < result.interval[1] < 0.14


def test_a_seed_may_be_the_mean_of_draws_that_are_no_other_seeds() -> None:
    found = claims.get("toy-draws")
    assert found.data == "none; a seed is the mean of 4 draws"
    for seed, draws in ((0, range(100, 104)), (5, range(120, 124)), (1002, range(1008, 1012))):
        mean = sum(draws) / 4
        assert found(Budget("small"), seed) == Measured(mean, 1.0, {"twice": 2 * mean}, 0.5 * mean, (mean, 1.0))
    assert found(Budget("smoke"), 5).method == 5.0  # one draw, as a smoke run shows no more
    with pytest.raises(ClaimError, match="differences of images are not to be"):
        claims.get("toy-draws-of-images")(Budget("small"), 0)


def test_parts_of_a_paper_are_stored_apart(tmp_path: Path) -> None:
    claims.run("toy-weak", "small")
    claims.run("toy-weak:beside", "small")
    assert {item.name: item.verdict for item in claims.stored(tmp_path)} == {
        "toy-weak": "no answer",
        "toy-weak:beside": "holds",
    }


def test_what_was_built_is_noted() -> None:
    result = claims.run("toy-trend", "smoke")
    assert result.built == ["repertoire.heads.Linear"]


def test_data_of_the_users_own_is_measured_and_never_stored(tmp_path: Path) -> None:
    result = claims.run("toy-trend", "small", data="digits")
    assert (result.tier, result.data, result.extra["source"]) == ("yours", "digits", [1.0] * 5)
    assert result.overlap > 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="these can: toy-trend"):
        claims.run("toy-better", "small", data="digits")


def test_runs_repeat_bit_for_bit_on_one_thread() -> None:
    before = torch.get_num_threads()
    first, second = (claims.run("toy-better", "small", store=False) for _ in range(2))
    assert first.values == second.values
    assert first.extra["threads"] == [1.0] * 5
    assert torch.get_num_threads() == before


def test_processes_change_nothing_and_failures_come_back_from_them(tmp_path: Path) -> None:
    alone = claims.run("toy-noisy", "small", store=False)
    chosen = [toys.failing, toys.noisy, toys.smaller, toys.unknown]
    outcomes = list(claims.run_all(chosen, "small", workers=2))
    reasons = sorted(str(outcome) for outcome in outcomes if isinstance(outcome, ClaimError))
    assert len(outcomes) == 4
    assert "ZeroDivisionError: nothing to divide by" in reasons[0]
    assert "did you mean 'thing'" in reasons[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy-noisy.small.json", "toy-smaller.small.json"]
    together = claims.evidence("toy-noisy", folder=tmp_path)
    assert together is not None
    assert together.values == alone.values


def test_a_worker_that_is_killed() -> None:
    (outcome,) = claims.run_all([toys.killed], "small", workers=2)
    assert isinstance(outcome, ClaimError)
    assert "toy-killed" in str(outcome)


def test_smaller_can_be_better() -> None:
    result = claims.run("toy-smaller", "small", store=False)
    assert (result.verdict, result.reason) == ("does not hold", "the effect is reversed")
    assert result.differences == pytest.approx([-1.0, -0.99, -0.98, -0.97, -0.96])
    # The effect is in favour of the method, whatever the sign of the metric: 1.02 - 2, and its interval likewise.
    assert result.effect == "-0.98"
    low, high = map(float, result.span.split(" to "))
    assert -1.1 < low < -0.98 < high < -0.9
    assert (
        "value (less is better) 2 (ours) against 1.02 (theirs), a difference of -0.98 (98.1% interval"
        in result.sentence
    )


def test_the_contrast_that_decides_is_named() -> None:
    result = claims.run("toy-better", "small", store=False)
    assert result.contrast == f"{result.arms[0]} against {result.arms[1]}"
    arms = ["first", "second", "third"]
    values = [[0.1, 0.5, 0.4], [0.1, 0.6, 0.5]]
    steps = dataclasses.replace(result, kind="ordering", arms=arms, values=values, mean=-0.1)
    assert steps.contrast == "third against second"
    assert steps.differences == pytest.approx([-0.1, -0.1])
    assert "in the order claimed 0.1 (first), 0.55 (second), 0.45 (third); of its steps the weakest decides" in (
        steps.sentence
    )
    inner = dataclasses.replace(steps, kind="optimum")
    assert inner.contrast == "the best arm between the ends against third"
    assert dataclasses.replace(inner, mean=0.45).contrast == "the best arm between the ends against first"


def test_rounding_is_no_effect() -> None:
    result = claims.run("toy-better", "small", store=False)
    nearly = dataclasses.replace(result, mean=-5.6e-18, interval=(-2e-9, 1e-3))
    assert (nearly.effect, nearly.span) == ("0", "0 to +0.001")
    assert dataclasses.replace(result, interval=(0.50651, 0.50682)).span == "+0.50651 to +0.50682"


def test_what_was_asked_for_is_said() -> None:
    result = claims.run("toy-better", "small", store=False)
    said = {
        ("better", True, 0.0): "more than 0",
        ("better", False, -0.01): "at least -0.01",
        ("equivalent", True, 0.02): "within 0.02 of 0",
        ("identity", True, 1e-6): "at most 1e-06",
    }
    for (kind, strict, threshold), words in said.items():
        assert dataclasses.replace(result, kind=kind, strict=strict, threshold=threshold).asked == words


def test_smoke_decides_nothing_and_is_not_kept(tmp_path: Path) -> None:
    result = claims.run("toy-weak", "smoke")
    assert (len(result.seeds), result.interval, result.verdict) == (1, None, "undecided")
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


def test_nothing_is_begun_when_time_is_over() -> None:
    lines: list[str] = []
    assert list(claims.run_all([toys.better, toys.smaller], "small", minutes=0.0, progress=lines.append)) == []
    assert lines == ["toy-better: no time left for it", "toy-smaller: no time left for it"]


def test_priority_puts_parts_last_and_what_is_missing_first(tmp_path: Path) -> None:
    claims.run("toy-better", "small")
    chosen = [toys.same, toys.better, toys.weak]
    ordered = claims.by_priority(chosen, "small", folder=tmp_path)
    assert [claim.name for claim in ordered] == ["toy-weak", "toy-better", "toy-weak:beside"]


def test_measuring_again_says_how_far_the_figures_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims.run("toy-better", "small")
    found = claims.again("toy-better", folder=tmp_path)
    assert found.equal
    assert found.moved == 0
    assert "the same figures" in found.sentence
    own = _claim._REGISTRY
    monkeypatch.setitem(own, "toy-better", dataclasses.replace(toys.better, function=lambda b, s: Measured(3.0, 1.0)))
    moved = claims.again("toy-better", folder=tmp_path)
    assert moved.moved == pytest.approx(2.0 - moved.then.mean)
    assert "MORE than the noise" in moved.sentence
    with pytest.raises(ConfigError, match="no evidence"):
        claims.again("toy-smaller", folder=tmp_path)


def test_a_pilot_uses_seeds_that_no_evidence_has() -> None:
    lines: list[str] = []
    found = claims.pilot("toy-weak", seeds=3, progress=lines.append)
    assert found.seeds == [1000, 1001, 1002]
    assert found.differences == pytest.approx([0.9 + 0.001 * s - 0.35 for s in found.seeds])
    assert "does not beat the trivial answer" in found.failed
    assert found.needed is not None
    assert found.spread == pytest.approx(0.001)
    with pytest.raises(ConfigError, match="2 seeds or more"):
        claims.pilot("toy-weak", seeds=1)


def test_damaged_evidence_is_named(tmp_path: Path) -> None:
    path = claims.run("toy-better", "small").write()
    whole = path.read_text()
    for text in ("", whole[: len(whole) // 2], "[]", "{}", whole.replace('"format": 2', '"format": 99')):
        path.write_text(text)
        with pytest.raises(DataError, match="toy-better"):
            claims.evidence("toy-better", folder=tmp_path)


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slug": "toy-better"}, "already has a claim"),
        ({"kind": "best"}, "the kind is 'best'"),
        ({"method": ""}, "name its arms"),
        ({"kind": "trend", "arms": ("a", "b", "c"), "points": (1, 2)}, "needs as many points"),
        ({"kind": "equivalent"}, "needs a margin above 0"),
        ({"ceiling": 1.0}, "give effect="),
        ({"data": ""}, "say what it is measured on"),
        ({"draws": 46}, "expected 1 to 45"),
        ({"draws": 2, "exact": True}, "1 where one seed decides"),
        ({"draws": 2, "overlap": 0.3}, "overlap"),
        ({"floor": lambda budget, seed: 0.1}, "a floor needs learned="),
        ({"floor": lambda budget, seed: 0.1, "learned": 0.1, "trivial": 0.1}, "takes the place of trivial="),
    ],
)
def test_what_a_claim_says_of_itself_must_fit(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        claims.claim(**{"slug": "toy-other", "statement": "", **toys.OPTIONS, **options})(lambda b, s: Measured(1.0))


@pytest.mark.parametrize(
    ("data", "tier", "redrawn"),
    [
        ("digits, a tenth of them", "toy", True),
        ("drawn shapes", "drawn", False),
        ("breast cancer and digits of scikit-learn", "real, small", False),
    ],
)
def test_the_tier_is_read_off_the_data(data: str, tier: str, redrawn: bool) -> None:
    check = claims.claim("toy-tier", statement="", **{**toys.OPTIONS, "data": data})(lambda b, s: Measured(1.0))
    _claim._REGISTRY.pop("toy-tier")
    assert (check.tier, check.overlap > 0) == (tier, redrawn)
