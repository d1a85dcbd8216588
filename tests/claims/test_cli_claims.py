"""`repertoire claims` and `python -m repertoire.claims`, as typed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import _toy_claims as toys
import pytest
from typer.testing import CliRunner

from repertoire import claims
from repertoire.claims import __main__, _claim, _harness, _table
from repertoire.cli.claims import app

for toy in toys.TOYS:
    _claim._REGISTRY.pop(toy.name, None)


@pytest.fixture(autouse=True)
def _toys_and_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = {toy.name: toy for toy in (toys.better, toys.smaller, toys.same, toys.trend)}
    monkeypatch.setattr(_claim, "_REGISTRY", own)
    for module in (_claim, _harness, _table, claims, __main__):
        monkeypatch.setattr(module, "entries", lambda: [own[name] for name in sorted(own)])
    monkeypatch.setattr("repertoire.papers._evidence.FOLDER", tmp_path / "shipped")
    monkeypatch.setenv("REPERTOIRE_EVIDENCE", str(tmp_path / "own"))


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_run_show(tmp_path: Path) -> None:
    assert "toy-better\tnot measured\t\tOurs is more." in run("list")
    assert "There is no evidence yet" in run("show", "toy-better")
    text = run("run", "toy-better", "--workers", "1")
    assert "HOLDS. On none (drawn data): value " in text
    assert text.count("toy-better seed") == 5
    assert run("show") == run("show", "toy-better") == text[text.index("toy-better: ") :]
    # What comes with Repertoire stands in the list; what was measured here is shown beside it.
    assert "toy-better\tnot measured" in run("list")
    run("run", "toy-better", "--workers", "1", "--folder", str(tmp_path / "shipped"))
    assert "toy-better\tholds" in run("list")
    assert run("show", "toy-better").count("HOLDS") == 2
    record = json.loads(run("show", "--format", "json"))[0]
    assert record["verdict"] == "holds"
    assert json.loads(run("list", "--format", "json"))[0]["verdict"] == "holds"


def test_table_as_text_and_csv(tmp_path: Path) -> None:
    for name in ("toy-better", "toy-smaller", "toy-weak:beside"):
        run("run", name, "--workers", "1", "--folder", str(tmp_path / "shipped"))
    text = run("table")
    assert "toy-better*\tholds" in text
    # Less is better, and more was measured: the effect is in favour of the method.
    assert "toy-smaller\tdoes not hold\t\t-0.98" in text
    assert "4 claims: 2 hold, 1 does not hold, 1 not measured" in text
    assert "were tested by their seeds; 0.1 of these (2.5% each) would hold by chance" in text
    rows = list(csv.DictReader(run("table", "--format", "csv").splitlines()))
    assert [row["claim"] for row in rows] == ["toy-better", "toy-smaller", "toy-trend", "toy-weak:beside"]
    assert rows[0]["survives"] == "True"
    assert rows[2]["effect"] == ""
    assert [row["claim"] for row in json.loads(run("table", "--verdict", "does not hold", "--format", "json"))] == [
        "toy-smaller"
    ]


def test_smoke_says_that_it_decides_nothing(tmp_path: Path) -> None:
    assert "decides nothing" in run("run", "toy-better", "--budget", "smoke")
    run("run", "toy-smaller", "--no-store", "--workers", "1")
    assert list(tmp_path.rglob("*.json")) == []


def test_again_pilot_and_own_data(tmp_path: Path) -> None:
    run("run", "toy-smaller", "--workers", "1", "--folder", str(tmp_path / "shipped"))
    assert "the same figures again (5 seeds)" in run("run", "toy-smaller", "--again", "--workers", "1")
    text = run("pilot", "toy-smaller", "--seeds", "3")
    assert "toy-smaller seed 1000 of 1" in text
    assert "The bed is sound" in text
    text = run("run", "toy-trend", "--data", "digits", "--workers", "1")
    assert "On digits (your data): value" in text
    assert "On your data, four is the better choice over one" in text


def test_all_by_priority_within_a_time(tmp_path: Path) -> None:
    text = run("run", "--priority", "--workers", "1")
    assert text.count("seed 0 of 5") == 4
    assert text.index("toy-better: holds") < text.index("toy-weak:beside: holds"), "central claims go first"
    assert "seed" not in run("run", "--priority", "--workers", "1"), "all of it is fresh"
    assert "no time left" in run("run", "--priority", "--minutes", "0", "--folder", str(tmp_path / "new"))
    assert CliRunner().invoke(app, ["run"]).exit_code == 2
    assert CliRunner().invoke(app, ["run", "toy-better", "--priority"]).exit_code == 2


def test_make_evidence_measures_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = str(tmp_path / "shipped")
    arguments = ["--missing-or-stale", "--budget", "small", "--workers", "1", "--store", store]
    assert __main__.main([*arguments, "toy-better"]) == 0
    assert __main__.main([*arguments, "--priority"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("toy-better: holds") == 1
    assert "toy-smaller: does not hold on none (drawn data): value" in printed
    assert __main__.main(arguments) == 0
    assert "up to date" in capsys.readouterr().out
    assert __main__.main(["--refresh", "--store", store]) == 0
    assert "0 of 0 are fresh again" in capsys.readouterr().out


def test_make_evidence_again_fails_where_a_figure_moved(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = tmp_path / "shipped"
    arguments = ["--workers", "1", "--store", str(store)]
    assert __main__.main([*arguments, "--again", "2"]) == 1, "nothing is stored that could come out again"
    for name in ("toy-better", "toy-smaller", "toy-weak:beside"):
        assert __main__.main([*arguments, name]) == 0
    capsys.readouterr()
    assert __main__.main([*arguments, "--again", "2"]) == 0
    printed = capsys.readouterr().out
    assert "of 3 with evidence" in printed
    assert printed.count("the same figures again (5 seeds)") == 2
    assert "2 of 2 give what is stored" in printed
    file = store / "toy-better.small.json"
    stored = json.loads(file.read_text())
    stored["values"] = [[ours - 0.5, theirs] for ours, theirs in stored["values"]]
    file.write_text(json.dumps(stored))
    assert __main__.main([*arguments, "--again", "5"]) == 1
    printed = capsys.readouterr().out
    assert "toy-better: the mean difference moved by +0.5, MORE than the noise" in printed
    assert "2 of 3 give what is stored" in printed


def test_smoke_fails_when_a_claim_cannot_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert __main__.main(["--smoke"]) == 0
    monkeypatch.setattr(__main__, "entries", lambda: [toys.not_a_number, toys.better])
    assert __main__.main(["--smoke", "--workers", "1"]) == 1
    captured = capsys.readouterr()
    assert "1 of 2 claims measured" in captured.out
    assert "'toy-nan' failed" in captured.err
