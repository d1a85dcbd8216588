"""What is seen while a comparison runs."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from repertoire.compare._display import Board
from repertoire.compare._grid import make_grid
from repertoire.compare._jobs import Job, Outcome
from repertoire.compare._metric import find_metric


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def board(stream: io.StringIO, **options: object) -> Board:
    grid, _ = make_grid({"data": "digits", "epochs": 7}, {"loss": "cross-entropy,focal"})
    return Board(grid.members, grid.baseline.label, range(3), find_metric("accuracy"), stream=stream, **options)


def job(b: Board, number: int, seed: int, folder: Path, trial: int | None = None) -> Job:
    member = b.members[number]
    config = member.config.model_copy(update={"seed": seed})
    path = folder / f"{number}-{seed}-{trial}"
    return Job(member.label, config, path, folder / "marks", folder / "stop", trial=trial)


def shown(b: Board) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    console.print(b.table())
    return console.file.getvalue().splitlines()


def test_a_line_for_each_run_where_there_is_no_terminal(tmp_path: Path):
    stream = io.StringIO()
    b = board(stream)
    jobs = [job(b, 0, 0, tmp_path), job(b, 1, 0, tmp_path)]
    with b.shown():
        b.begin(jobs)
        b.end(jobs[0], Outcome(jobs[0].path, "finished"), 0.9, 12.3)
        b.end(jobs[1], Outcome(jobs[1].path, "failed", "it broke"), None, None)
    assert stream.getvalue().splitlines() == [
        "[1/2] cross-entropy, seed 0: test accuracy 90.0%, 12 s of training",
        "[2/2] focal, seed 0: failed: it broke",
    ]


def test_the_table_keeps_up(tmp_path: Path):
    b = board(io.StringIO(), quiet=True)
    b.trials = 4
    jobs = [job(b, number, seed, tmp_path) for seed in range(2) for number in range(2)]
    b.begin(jobs)
    for at, value in zip(jobs[:3], (0.90, 0.92, 0.91), strict=True):
        b.end(at, Outcome(at.path, "finished"), value, 1.0)
    b.take(job(b, 1, 9, tmp_path, trial=0), 0.8)
    running = jobs[3]
    running.path.mkdir()
    (running.path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    running.marks.mkdir()
    running.mark.write_text("1")
    _, first, second = shown(b)
    assert first.split() == ["cross-entropy", "0/4", "2/3", "90.5%", "baseline"]
    assert second.split() == ["focal", "1/4", "1/3", "92.0%", "+2.0", "points", "seed", "1:", "epoch", "2/7"]
    b.end(running, Outcome(running.path, "finished"), 0.94, 1.0)
    assert "+2.5 points (-3.9 to +8.9)" in shown(b)[2]


def test_on_a_terminal_the_table_is_drawn_and_lines_stay(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    b = board(stream)
    at = job(b, 0, 0, tmp_path)
    with b.shown():
        b.begin([at])
        b.end(at, Outcome(at.path, "failed", "[red] is no markup"), None, None)
    assert "configuration" in stream.getvalue()
    assert "failed: [red] is no markup" in stream.getvalue()


def test_quiet_is_quiet(tmp_path: Path):
    stream = Terminal()
    b = board(stream, quiet=True)
    with b.shown():
        b.note("nobody hears this")
    assert stream.getvalue() == ""
