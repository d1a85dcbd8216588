"""`repertoire papers`, as typed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from repertoire.cli.papers import app
from repertoire.errors import ConfigError, UnknownName


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_search_in_words() -> None:
    assert "sbcl" in run("search", "few labels, long-tailed classes")
    assert run("search", "few", "labels,", "long-tailed", "classes") == run("search", "few labels, long-tailed classes")
    assert len(run("search", "labels", "--limit", "3").splitlines()) == 1 + 3
    assert "Nothing was found" in run("search", "zzzzqqqq")
    assert json.loads(run("search", "zzzzqqqq", "--format", "json")) == []
    first = json.loads(run("search", "long-tailed classes", "--format", "json"))[0]
    assert first["family"] == "long-tail"
    assert first["use"]


def test_an_empty_search_asks_for_words() -> None:
    with pytest.raises(ConfigError, match="say what you need"):
        CliRunner().invoke(app, ["search", ""], catch_exceptions=False)


def test_list_by_family_and_status() -> None:
    rows = json.loads(run("list", "--family", "ssl", "--format", "json"))
    assert len(rows) == 60
    assert {row["family"] for row in rows} == {"ssl"}
    counts = [
        len(json.loads(run("list", "--family", "ssl", "--status", status, "--format", "json")))
        for status in ("open", "built", "holds", "does-not-hold", "undecided", "no-answer")
    ]
    assert sum(counts) == 60
    header, *lines = run("list", "--family", "few-shot").splitlines()
    assert header.split("\t") == ["id", "paper", "year", "family", "status", "title"]
    assert len(lines) == 10


def test_families() -> None:
    assert len(run("families").splitlines()) == 1 + 32


def test_show() -> None:
    text = run("show", "supcon")
    assert text.startswith("Supervised Contrastive Learning (2020)\n")
    assert "Claim: " in text
    assert text == run("show", "292")
    assert json.loads(run("show", "supcon", "--format", "json"))["status"] in text


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'supcon'"):
        run("show", "supcom")
    with pytest.raises(UnknownName, match="did you mean 'few-shot'"):
        run("list", "--family", "few-shots")
    with pytest.raises(UnknownName, match="status"):
        run("list", "--status", "done")
