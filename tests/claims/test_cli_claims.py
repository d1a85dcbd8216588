"""`repertoire claims` and `python -m repertoire.claims`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import _toy_claims as toys
import pytest
from typer.testing import CliRunner

from repertoire import claims
from repertoire.claims import __main__, _claim, _evidence, _harness
from repertoire.cli.claims import app

for toy in (toys.better, toys.smaller, toys.failing, toys.not_a_number, toys.killed, toys.unknown):
    _claim._REGISTRY.pop(toy.slug, None)


@pytest.fixture(autouse=True)
def _toys_and_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = {toy.slug: toy for toy in (toys.better, toys.smaller)}
    monkeypatch.setattr(_claim, "_REGISTRY", own)
    for module in (_claim, _harness, claims, __main__):
        monkeypatch.setattr(module, "entries", lambda: [own[slug] for slug in sorted(own)])
    monkeypatch.setattr(_evidence, "FOLDER", tmp_path)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_run_show() -> None:
    assert "toy-better\tnot measured\t\tOurs is more." in run("list")
    assert "There is no evidence yet" in run("show", "toy-better")
    text = run("run", "toy-better", "--workers", "1")
    assert "HOLDS" in text
    assert text.count("toy-better seed") == 5
    assert "toy-better\tholds" in run("list")
    assert run("show") == run("show", "toy-better") == text[text.index("toy-better: ") :]
    (record,) = json.loads(run("show", "--format", "json"))
    assert record["verdict"] == "holds"
    assert json.loads(run("list", "--format", "json"))[0]["verdict"] == "holds"


def test_smoke_says_that_it_decides_nothing(tmp_path: Path) -> None:
    assert "decides nothing" in run("run", "toy-better", "--budget", "smoke")
    run("run", "toy-smaller", "--no-store", "--workers", "1")
    assert list(tmp_path.iterdir()) == []


def test_make_evidence_measures_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--missing-or-stale", "--budget", "small", "--workers", "1"]
    assert __main__.main([*arguments, "toy-better"]) == 0
    assert __main__.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count("toy-better: holds") == 1
    assert "toy-smaller: does not hold" in printed
    assert __main__.main(arguments) == 0
    assert "up to date" in capsys.readouterr().out


def test_smoke_fails_when_a_claim_cannot_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert __main__.main(["--smoke"]) == 0
    monkeypatch.setattr(__main__, "entries", lambda: [toys.not_a_number, toys.better])
    assert __main__.main(["--smoke"]) == 1
    captured = capsys.readouterr()
    assert "1 of 2 claims measured" in captured.out
    assert "'toy-nan' failed" in captured.err
