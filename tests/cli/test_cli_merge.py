"""`repertoire merge` and `compress` on the command line: what is typed, what is printed, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from repertoire import train
from repertoire.cli import main
from repertoire.cli.compress import counted
from repertoire.cli.merge import Learned, learned
from repertoire.errors import ConfigError

OPTIONS = {"backbone": "convnet:width=4,depth=2", "epochs": 2, "device": "cpu", "batch_size": 64, "quiet": True}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start, and two runs that began there."""
    root = tmp_path_factory.mktemp("merge")
    start = train.fit("digits", out=root / "base", **OPTIONS)
    for name, lr in (("a", 0.003), ("b", 0.006)):
        train.fit("digits", out=root / name, start=str(start.path), lr=lr, **OPTIONS)
    return root


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, " ".join(err.split())


def test_the_first_run_is_the_base_where_the_others_say_so(places, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(places)
    out = tmp_path / "merged"
    by = ["--by", "task-arithmetic:scale=0.5", "--no-report", "--device", "cpu"]
    code, printed, err = said(capsys, "merge", "base", "a", "b", *by, "--out", out)
    assert code == 0, err
    assert [line.split()[-1] for line in printed.splitlines()[:2]] == ["a", "b"]
    named = train.merge(["a", "b"], tmp_path / "named", operator="task-arithmetic:scale=0.5", base="base")
    assert named.metrics["accuracy"] == train.load(out).metrics["accuracy"]
    # Other operators have no use for a base, and average what they are given.
    soup = ["--by", "uniform-soup", "--no-report", "--device", "cpu"]
    code, printed, err = said(capsys, "merge", "base", "a", "b", *soup)
    assert code == 0, err
    assert len([line for line in printed.splitlines() if line.startswith("validation")]) == 4
    assert "runs/base-merged-1" in printed
    code, _, err = said(capsys, "merge", "a", "b", *soup, "--base", "base")
    assert code != 0
    assert "does not look at where the runs started; leave --base out" in err


def test_factors_can_be_learned(places, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(places)
    by = ["--by", "task-arithmetic", "--learn", "blocks", "--out", tmp_path / "m", "--device", "cpu", "--no-report"]
    code, printed, err = said(capsys, "merge", "base", "a", "b", *by)
    assert code == 0, err
    assert "by anisotropic:learn=module,start=0.3" in printed
    assert learned("task-arithmetic:scale=0.5", Learned.whole) == "anisotropic:learn=whole,start=0.5"
    assert learned("task-arithmetic:0.4", Learned.tensors) == "anisotropic:learn=tensor,start=0.4"
    for other in ("ties", "task-arithmetic:weights=(1,2)"):
        with pytest.raises(ConfigError, match="goes with --by task-arithmetic"):
            learned(other, Learned.blocks)


def test_compression_says_what_it_costs(places, capsys, monkeypatch):
    monkeypatch.chdir(places)
    code, printed, err = said(capsys, "compress", "a", "--by", "ternary:alpha=1", "--no-report", "--device", "cpu")
    assert code == 0, err
    assert "beside" in printed
    assert "base, which it is a change of" in printed
    assert "multiplications for an image" in printed
    assert "runs/a-small-1" in printed
    assert [counted(x) for x in (2e9, 123_400_000, 5100, 7)] == ["2 G", "123 M", "5.1 k", "7 "]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["merge", "a", "b", "--by", "tie"], "ties"),
        (["merge", "a", "b", "--by", "ties:densty=0.5"], "density"),
        (["merge", "a", "b", "--by", "ties:density=2"], "density"),
        (["merge", "a", "nowhere"], "nowhere"),
        (["merge", "a"], "two runs or more"),
        (["compress", "a", "--by", "codebok"], "codebook"),
        (["compress", "a", "--by", "prune:share=3"], "share"),
        (["compress", "nowhere"], "nowhere"),
        (["stitch", "a", "b", "nowhere"], "nowhere"),
    ],
)
def test_slips_of_the_pen_are_answered(places, capsys, monkeypatch, tmp_path, typed, told):
    monkeypatch.chdir(places)
    code, _, err = said(capsys, *typed, "--out", tmp_path / "out", "--device", "cpu")
    assert code != 0
    assert told in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("typed", [["merge", "a", "b"], ["compress", "a"], ["stitch", "a", "b"]])
def test_a_run_is_not_overwritten(places, capsys, monkeypatch, typed):
    """Nor is it offered: these commands have no --overwrite, and what they make is not trained on."""
    monkeypatch.chdir(places)
    before = (places / "base" / "run.json").read_bytes()
    code, _, err = said(capsys, *typed, "--out", "base", "--device", "cpu")
    assert code == 2
    assert "base already holds a run; choose another --out" in err
    assert "--overwrite" not in err
    assert (places / "base" / "run.json").read_bytes() == before
