"""`repertoire compare` as a user would type it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from commands import run_cli
from repertoire import cli

SHARED = ["--backbone", "mlp:hidden=8,depth=1", "--augment", "none", "--epochs", "1", "--device", "cpu", "--jobs", "1"]


@pytest.fixture(scope="module")
def done(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("comparison") / "a"
    with pytest.raises(SystemExit, match="0"):
        cli.main(["compare", str(tiny), "--vary", "loss=cross-entropy,squentropy", "--seeds", "2", "-q",
                  *SHARED, "--out", str(out)])  # fmt: skip
    return out


def test_it_prints_a_table_sentences_and_where_the_report_is(done: Path, tiny: Path, tmp_path: Path, capsys):
    out = shutil.copytree(done, tmp_path / "a")
    status, text, err = run_cli(
        capsys, "compare", tiny, "--vary", "loss=cross-entropy,squentropy,focal", "--seeds", 2, *SHARED, "-o", out
    )
    assert status == 0, err
    lines = text.splitlines()
    assert lines[0].split("\t")[:3] == ["configuration", "runs", "test accuracy (95 % interval)"]
    assert [line.split("\t")[0] for line in lines[1:4]] == ["cross-entropy", "squentropy", "focal"]
    assert "baseline" in lines[1]
    assert any("and cross-entropy apart" in line or "cross-entropy by" in line for line in lines)
    assert lines[-1] == f"report: {out / 'report.html'}"
    assert (out / "report.html").exists()
    assert "4 of 6 runs are finished already" in err
    assert "[2/2] focal, seed 1: test accuracy" in err


def test_json_is_all_there_is_on_standard_output(done: Path, tiny: Path, capsys):
    status, text, err = run_cli(
        capsys, "compare", tiny, "--vary", "loss=cross-entropy,squentropy", "--seeds", 2, *SHARED, "-o", done, "--json",
        "--no-report", "-q", "--baseline", "loss=squentropy", "--metric", "nll",
    )  # fmt: skip
    assert (status, err) == (0, "")
    found = json.loads(text)
    assert (found["baseline"], found["metric"]) == ("squentropy", "nll")
    assert found["higher_is_better"] is False


def test_options_may_stand_in_a_file(done: Path, tiny: Path, tmp_path: Path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {tiny}\nbackbone: 'mlp:hidden=8,depth=1'\naugment: none\nepochs: 1\ndevice: cpu\n")
    status, _, err = run_cli(
        capsys, "compare", "-c", config, "--vary", "loss=cross-entropy,squentropy", "--seeds", 2, "-o", done,
        "--no-report", "--jobs", 1,
    )  # fmt: skip
    assert status == 0, err
    assert "4 of 4 runs are finished already" in err


def test_a_failed_run_shows_in_the_exit_status(tiny: Path, tmp_path: Path, capsys):
    status, text, _ = run_cli(
        capsys, "compare", tiny, "--vary", "lr=0.05,1e30", "--seeds", 1, *SHARED, "-o", tmp_path / "a", "-q"
    )
    assert status == 1
    assert "lr=1e+30 failed with seed 0: " in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what varies"),
        (["--vary", "loss=supcon,supcom"], "no loss is named 'supcom'; did you mean 'supcon'"),
        (["--vary", "los=a,b"], "did you mean 'loss'"),
        (["--vary", "loss"], "write --vary FIELD=VALUE"),
        (["--vary", "loss=focal,focal"], "twice"),
        (["--vary", "loss=supcon,focal", "--seeds", "0"], "seeds is 0"),
        (["--vary", "loss=supcon,focal", "--metric", "acc"], "no metric is named 'acc'"),
        (["--vary", "loss=supcon,focal", "--backend", "lok"], "did you mean 'loky'"),
        (["--vary", "loss=supcon,focal", "--search", "lr=5"], "two different values"),
        (["--vary", "loss=supcon,focal", "--loss", "focal"], "loss is given as 'focal' for all"),
    ],
)
def test_what_is_refused_in_one_line_and_with_status_2(arguments, message, tiny: Path, tmp_path: Path, capsys):
    status, out, err = run_cli(capsys, "compare", tiny, *SHARED, "-q", "-o", tmp_path / "a", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("repertoire: ")
    assert message in err
    assert not (tmp_path / "a").exists()


def test_help_lists_its_own_options_and_those_of_a_run(capsys):
    status, text, _ = run_cli(capsys, "compare", "--help")
    assert status == 0
    for option in ("--vary", "--seeds", "--baseline", "--search", "--trials", "--backend", "--loss", "--epochs"):
        assert option in text
