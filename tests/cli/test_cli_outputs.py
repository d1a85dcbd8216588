"""Where commands write: every --out is looked at before anything is done, and a failure names the file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from repertoire import cli
from repertoire.cli._maps import Index, MapArchive
from repertoire.cli.evaluate import print_metrics
from repertoire.errors import RunError
from repertoire.tasks import Outputs, score


def commands() -> dict[str, list[str]]:
    """The commands with an --out, and what has to stand before it."""
    tree = typer.main.get_command(cli.build_app(["train", "plan", "compare", "self-train"]))
    found = {}
    for name, command in tree.commands.items():
        if any("--out" in parameter.opts for parameter in command.params):
            arguments = [p for p in command.params if p.param_type_name == "argument" and p.required]
            options = [p for p in command.params if p.param_type_name == "option" and p.required and p.name != "out"]
            assert not options, f"say here how {name} is called"
            found[name] = ["nothing"] * len(arguments)
    return found


COMMANDS = commands()


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(words))
    said = capsys.readouterr().err.strip()
    assert stop.value.code == 2, said
    assert "\n" not in said, said
    return said


def test_the_commands_are_found():
    assert {"train", "compare", "evaluate", "diagnose", "predict", "embed", "explain", "report", "export"} <= set(
        COMMANDS
    )
    assert {"merge", "fit-features"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("empty", ["", "  "])
def test_a_place_without_a_name(name: str, empty: str, capsys: pytest.CaptureFixture[str]):
    assert "--out is empty: name a" in refused(capsys, name, *COMMANDS[name], "--out", empty)


def test_folders_of_evidence_are_places_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("mine")
    words = ("claims", "run", "nothing", "--folder")
    assert "--folder is empty: name a folder" in refused(capsys, *words, "")
    assert "--folder is" in refused(capsys, *words, str(tmp_path / "file"))


def test_a_merged_run_is_refused_before_the_others_are_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "notes.txt").write_text("mine")
    said = refused(capsys, "merge", "nothing", "nowhere", "--out", str(tmp_path))
    assert "holds no run of Repertoire" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_a_place_that_cannot_be_written(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "file"
    file.write_text("mine")
    said = refused(capsys, name, *COMMANDS[name], "--out", str(file / "below"))
    assert f"{file} is no folder" in said
    # A file system on which nothing can be made, whoever asks.
    said = refused(capsys, name, *COMMANDS[name], "--out", "/proc/here.npz")
    assert "nothing can be written to /proc (" in said
    assert ".tmp" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_for_a_folder_or_a_folder_for_a_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file.npz").write_text("mine")
    (tmp_path / "folder.npz").mkdir()
    said = [
        refused(capsys, name, *COMMANDS[name], "--out", str(tmp_path / place)) for place in ("file.npz", "folder.npz")
    ]
    assert ("which is a file: name a folder" in said[0]) != ("which is a directory: name a file in it" in said[1])


def test_a_run_that_is_there_is_refused_before_torch_is_imported(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    program = """
import sys
from repertoire.cli import main
try:
    main(["train", "digits", "--out", "run"])
except SystemExit as stop:
    print(stop.code, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["2", "False"], done.stderr
    assert "holds no run of Repertoire" in done.stderr


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_names_the_archive_of_maps(tmp_path: Path):
    class Full:
        write = staticmethod(full)

        def close(self) -> None:
            pass

    def write() -> None:
        archive = MapArchive(tmp_path / "maps.npz", ["grad-cam"], ["a", "b"])
        # In the order in which a command opens them: the index is open while the archive fails.
        with Index(tmp_path / "i.csv") as index, archive:
            index.add("a.png", "a.jpg", "grad-cam", "a", 0.5)
            archive._raw.close()
            archive._raw = Full()
            archive.add(np.zeros((1, 1, 1, 2, 2)), ["a"], np.zeros((1, 1), np.int64))

    with pytest.raises(RunError, match=r"no space left on the disk to write .*maps\.npz"):
        write()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--vary", "loss="), "loss varies and has no values: write --vary loss=A,B"),
        (("--vary", "loss=focal,"), "'focal,' has an empty value"),
        (("--vary", "loss=focal,supcon", "--search", "lr="), "--search lr=: a search needs two different values"),
        (("--vary", "=focal"), "write --vary FIELD=VALUE"),
    ],
)
def test_a_value_that_is_left_out_is_said_with_its_option(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
):
    assert said in refused(capsys, "compare", "digits", *words)


def test_a_long_name_is_cut_where_a_row_is_for_each_class(capsys: pytest.CaptureFixture[str]):
    """Otherwise one name makes every row as long."""
    logits = np.eye(2)[[0, 1, 1]] * 5
    result = Outputs(logits, logits, np.array([0, 1, 0]))
    print_metrics(score(result, ("n" * 191, "cat")))
    lines = capsys.readouterr().out.splitlines()
    assert any("n…" in line for line in lines)
    assert max(map(len, lines)) < 150
