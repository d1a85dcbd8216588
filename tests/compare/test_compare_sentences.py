"""From measurements to rows and sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repertoire.compare import Comparison, Measurement
from repertoire.compare._metric import find_metric
from repertoire.compare._rows import make_rows
from repertoire.errors import UnknownName

BASE = [0.900, 0.910, 0.905, 0.895, 0.902]


def comparison(metric: str = "accuracy", seconds: float = 1.0, memory: int = 100, **others) -> Comparison:
    """`base` with the values above, and others with their values; None stands for a run that failed."""
    entries = []
    for label, values in {"base": BASE, **others}.items():
        took, held = (1.0, 100) if label == "base" else (seconds, memory)
        runs = [
            Measurement(s, Path("x"), v, took, held) if v is not None else Measurement(s, Path("x"), reason="it broke")
            for s, v in enumerate(values)
        ]
        entries.append((label, {"loss": label}, {}, runs))
    found = find_metric(metric)
    count = max(map(len, (values for _, _, _, values in entries)))
    return Comparison(Path("x"), "digits", found, tuple(range(count)), "base", make_rows(entries, "base", found))


def plus(*differences: float) -> list[float]:
    return [value + difference for value, difference in zip(BASE, differences, strict=False)]


def test_a_difference_that_is_there():
    found = comparison(seconds=1.3, memory=150, ours=plus(0.010, 0.014, 0.012, 0.011, 0.013))
    assert found.sentences == [
        "ours beats base by 1.2 points (1.0 to 1.4) for 1.3 times the time and 1.5 times the memory."
    ]
    row = found.row("ours")
    assert row.verdict == "better"
    assert row.difference == pytest.approx(0.012)
    assert row.difference_interval == pytest.approx((0.01004, 0.01396), abs=1e-4)
    assert (row.time_ratio, row.memory_ratio) == (pytest.approx(1.3), pytest.approx(1.5))
    assert row.seeds_needed is None


def test_one_that_is_worse_and_as_fast():
    found = comparison(ours=plus(-0.010, -0.014, -0.012, -0.011, -0.013))
    assert found.sentences == ["ours loses to base by 1.2 points (1.0 to 1.4) for the same time."]


def test_less_is_better_for_a_loss():
    found = comparison("nll", ours=plus(-0.10, -0.14, -0.12, -0.11, -0.13))
    assert found.sentences == ["ours beats base by 0.120 (0.100 to 0.140) for the same time."]
    assert found.row("ours").verdict == "better"
    assert comparison("nll", ours=plus(0.10, 0.14, 0.12, 0.11, 0.13)).row("ours").verdict == "worse"


def test_seeds_that_cannot_tell_say_how_many_would():
    found = comparison(ours=plus(0.01, -0.01, 0.02, 0.015, -0.005))
    assert found.sentences == [
        "Five seeds cannot tell ours and base apart (+0.6 points, -1.0 to +2.2); about 39 would, if the difference is "
        "what it seems. The first took the same time."
    ]
    assert found.row("ours").seeds_needed == 39


def test_a_difference_too_small_for_any_number_of_seeds():
    (sentence,) = comparison(ours=plus(0.01, -0.01, 0.01, -0.01, 0.0001)).sentences
    assert "more than 1,000 would be needed" in sentence


def test_many_comparisons_are_corrected_for():
    """By itself the first would be a finding; among five it is not."""
    ours = plus(0.004, 0.010, 0.001, 0.008, 0.006)
    assert comparison(ours=ours).row("ours").verdict == "better"
    noise = {f"n{i}": plus(0.01, -0.01, 0.01, -0.01, 0.001 * i) for i in range(1, 5)}
    found = comparison(ours=ours, **noise)
    row = found.row("ours")
    assert row.verdict == "unproven"
    assert row.p is not None
    assert row.p < 0.05 < row.p_adjusted == pytest.approx(5 * row.p)
    assert "ours looks better than base by 0.6 points" in found.sentences[0]
    assert "among five comparisons one may look so by chance" in found.sentences[0]


def test_one_seed_is_no_ground_for_an_interval():
    found = comparison(ours=[0.95])
    assert found.row("ours").difference_interval is None
    assert (
        found.sentences[0] == "ours was 5.0 points better than base with the one seed that both have for the same time."
    )
    assert "A single seed says nothing about chance" in found.sentences[1]


def test_the_same_difference_with_every_seed_is_not_certainty():
    """Accuracies of a few hundred images often differ by the same number of images."""
    found = comparison(ours=plus(0.01, 0.01, 0.01)[:3])
    row = found.row("ours")
    values = [run.value for run in row.runs]
    assert values == pytest.approx([0.91, 0.92, 0.915])
    assert row.verdict != "better"
    assert comparison(ours=list(BASE)).sentences == [
        "ours and base gave the same test accuracy with every seed for the same time."
    ]


def test_failed_runs_are_left_out_and_named():
    found = comparison(ours=[*plus(0.010, 0.014, 0.012, 0.011), None], none=[None] * 5)
    assert found.row("ours").pairs == 4
    assert found.row("ours").verdict == "better"
    assert found.sentences[1] == "none cannot be compared: every run failed."
    assert "ours failed with seed 4: it broke." in found.sentences
    assert len(found.failures) == 6


def test_a_baseline_that_failed():
    entries = [
        ("base", {}, {}, [Measurement(0, Path("x"), reason="it broke")]),
        ("ours", {}, {}, [Measurement(0, Path("x"), 0.9, 1.0, 100)]),
    ]
    metric = find_metric("accuracy")
    found = Comparison(Path("x"), "digits", metric, (0,), "base", make_rows(entries, "base", metric))
    assert found.sentences[0] == "ours cannot be compared with base: no seed is finished for both."


def test_json_has_all_of_it():
    found = json.loads(comparison(ours=plus(0.01, 0.02), none=[None]).to_json())
    assert found["configurations"][1]["difference"] == pytest.approx(0.015)
    assert found["configurations"][0]["interval"] == pytest.approx((0.8956, 0.9092), abs=1e-3)
    assert found["configurations"][2]["mean"] is None
    assert found["failures"] == [{"label": "none", "seed": 0, "reason": "it broke"}]
    assert found["sentences"]


def test_metrics_and_how_they_are_written():
    with pytest.raises(UnknownName, match="no metric is named 'acuracy'; did you mean 'accuracy'"):
        find_metric("acuracy")
    accuracy, nll = find_metric("accuracy"), find_metric("nll")
    assert find_metric("balanced-accuracy").name == "balanced_accuracy"
    assert accuracy.difference(0.0004) == "0.04 points"
    assert accuracy.difference(-0.00001, sign=True) == "0.00 points"
    assert accuracy.differences(-0.01, 0.02, sign=True) == "-1.0 to +2.0"
    assert nll.difference(0.5, sign=True) == "+0.500"
    assert accuracy.value(None) == "–"
