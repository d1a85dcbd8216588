from __future__ import annotations

import json
from pathlib import Path

import pytest

from repertoire import load
from repertoire.cli import main

OPTIONS = ("--method", "replay", "--backbone", "convnet:width=8,depth=2", "--epochs", "1", "--augment", "none", "-q")


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["train", *map(str, arguments)])
    return int(stop.value.code or 0)


def test_it_trains_in_stages_prints_what_is_left_and_goes_on(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    arguments = (tiny, "--protocol", "classes:step=1,memory=20", *OPTIONS, "-o", tmp_path / "stages")
    assert command(*arguments) == 0
    said = capsys.readouterr().out
    for words in ("average accuracy at the end: ", "bound above", "bound below", "forgetting: ", "stage 3: "):
        assert words in said
    last = Path(said.split("all stages: ", 1)[1].split("\n", 1)[0])
    assert len(load(last).classes) == 3
    assert (last / "report.html").exists()
    assert f"report: {last.parent / 'report.html'}" in said
    outcome = json.loads((last.parent / "outcome.json").read_text())
    assert len(outcome["matrix"]) == 3
    before = (last / "run.json").stat().st_mtime_ns
    assert command(*arguments) == 0
    assert capsys.readouterr().out == said
    assert (last / "run.json").stat().st_mtime_ns == before
    page = (last.parent / "report.html").read_bytes()
    with pytest.raises(SystemExit, match="0"):
        main(["report", str(last.parent), "-o", str(tmp_path / "again.html")])
    assert capsys.readouterr().out == f"report: {tmp_path / 'again.html'}\n"
    assert (tmp_path / "again.html").read_bytes() == page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--protocol", "classes:step=9"), "give a smaller step"),
        (("--protocol", "clases"), "classes"),
        (("--protocol", "domains"), "needs a variable 'domain' or 'group'"),
        (("--protocol", "classes:memory=lots"), "expected a number of samples"),
        (("--protocol", "classes:step=1", "--overwrite"), "leave --overwrite out"),
    ],
)
def test_what_is_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: tuple[str, ...], words: str
):
    assert command(tiny, *arguments, *OPTIONS, "-o", tmp_path / "stages") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "stages").exists()


def test_a_run_is_resumed_without_a_protocol(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert command("--resume", tmp_path, "--protocol", "classes") == 2
    assert "--protocol" in capsys.readouterr().err
