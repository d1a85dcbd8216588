"""What is searched, and that a search that was stopped goes on as if it had not been."""

from __future__ import annotations

import math
import sys

import pytest

from repertoire.compare._search import Range, Study, Trial, parse_space, require_optuna
from repertoire.errors import ConfigError, MissingExtra, RunError, UnknownName


def space(**search: str) -> dict[str, Range]:
    return parse_space(search, {"data": "digits"}, ["loss"])


def run(study: Study, rounds: int = 99) -> Study:
    """A validation accuracy that is highest at a learning rate of 0.03."""
    while rounds and (wanted := study.next()):
        study.tell([Trial(s, 1 - abs(math.log10(s["lr"] / 0.03))) for s in wanted])
        rounds -= 1
    return study


def test_ranges_and_values():
    assert space(lr="1e-3..1e-1:log") == {"lr": Range(0.001, 0.1, log=True)}
    assert space(batch_size="16..64") == {"batch_size": Range(16, 64, whole=True)}
    assert space(optimizer="sgd,adamw") == {"optimizer": Range(choices=("sgd", "adamw"))}
    assert str(space(lr="1e-3..1e-1:log")["lr"]) == "0.001..0.1:log"
    assert space(rule="backprop,(local:blocks=2,auxiliary=linear)")["rule"].choices[1].startswith("local")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"lr": "1..2..3"}, "LOW..HIGH"),
        ({"lr": "a..b"}, "LOW..HIGH"),
        ({"lr": "0.1..0.1"}, "must lie below"),
        ({"lr": "0.1..0.01"}, "must lie below"),
        ({"weight_decay": "0..1:log"}, "above 0"),
        ({"lr": "-1..1"}, "lr is -1"),
        ({"lr": "0.1..1:cube"}, "'cube' is no scale"),
        ({"optimizer": "1..2"}, "is no number"),
        ({"optimizer": "sgd"}, "two different values"),
        ({"optimizer": "sgd,sgd"}, "two different values"),
        ({"optimizer": "sgd,adam"}, "optimizer is 'adam'"),
        ({"loss": "supcon,focal"}, "searched and given a value"),
        ({"data": "a,b"}, "data cannot be searched"),
        ({"seed": "1..9"}, "seed cannot be searched"),
    ],
)
def test_what_is_no_space(search, message):
    with pytest.raises(ConfigError, match=message):
        space(**search)


def test_an_unknown_field_suggests_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'lr'"):
        space(lrr="1..2")


def test_the_default_is_tried_first_and_the_budget_is_kept(tmp_path):
    study = run(Study(tmp_path / "a.json", space(lr="1e-3..1:log"), 8, 0, {"lr": 0.1, "epochs": 3}))
    assert len(study.done) == 8
    assert study.done[0].settings == {"lr": 0.1}
    assert all(0.001 <= trial.settings["lr"] <= 1 for trial in study.done)
    assert study.best is not None
    assert abs(math.log10(study.best.settings["lr"] / 0.03)) < 0.5


def test_a_default_outside_the_space_is_not_tried(tmp_path):
    study = Study(tmp_path / "a.json", space(lr="1e-3..1e-2"), 2, 0, {"lr": 0.1})
    assert study.next()[0]["lr"] <= 0.01


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    ranges = space(lr="1e-3..1:log", batch_size="16..64", optimizer="sgd,adamw")
    default = {"lr": 0.1, "batch_size": 32, "optimizer": "sgd"}
    whole = run(Study(tmp_path / "whole.json", ranges, 8, 5, default))
    run(Study(tmp_path / "parts.json", ranges, 8, 5, default), rounds=3)
    parts = run(Study(tmp_path / "parts.json", ranges, 8, 5, default))
    assert parts.done == whole.done
    more = run(Study(tmp_path / "parts.json", ranges, 10, 5, default))
    assert more.done[:8] == whole.done


def test_another_space_begins_anew(tmp_path):
    run(Study(tmp_path / "a.json", space(lr="1e-3..1:log"), 4, 0, {}))
    assert Study(tmp_path / "a.json", space(lr="1e-3..0.5:log"), 4, 0, {}).done == []


def test_every_configuration_tries_the_same_first_settings(tmp_path):
    first, second = (Study(tmp_path / f"{name}.json", space(lr="1e-3..1:log"), 8, 0, {}) for name in "ab")
    assert first.next() == second.next()
    assert len(first.next()) == 4


def test_trials_that_fail_count_and_are_never_the_best(tmp_path):
    study = Study(tmp_path / "a.json", space(lr="1e-3..1:log"), 4, 0, {})
    while wanted := study.next():
        study.tell([Trial(s, None, "it broke") for s in wanted])
    assert len(study.done) == 4
    assert study.best is None


def test_a_damaged_study(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(RunError, match="is damaged"):
        Study(tmp_path / "a.json", space(lr="1..2"), 4, 0, {})


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"^search needs an optional dependency.*\[compare\]"):
        require_optuna()
