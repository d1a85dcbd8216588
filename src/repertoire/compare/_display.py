"""What the user sees while a comparison runs: a table that keeps up, or a line for each run that ends."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from repertoire.compare._grid import Member
from repertoire.compare._jobs import Job, Outcome
from repertoire.compare._metric import Metric
from repertoire.statistics import interval

__all__ = ["Board"]


class Board:
    """Display of where every configuration stands.

    Args:
        members: the configurations, in the order of the table.
        baseline: label of the one that the others are measured against.
        seeds: of the runs of each.
        metric: what they are compared by.
        quiet: show nothing.
        stream: where to; standard error by default, so that standard output stays clean for results.
    """

    def __init__(
        self,
        members: Sequence[Member],
        baseline: str,
        seeds: Sequence[int],
        metric: Metric,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self.members = members
        self.baseline = baseline
        self.seeds = seeds
        self.metric = metric
        self.quiet = quiet
        self.stream = stream or sys.stderr
        self.values: dict[str, dict[int, float]] = {member.label: {} for member in members}
        self.failed: dict[str, int] = {member.label: 0 for member in members}
        self.searched: dict[str, int] = {}
        self.trials = 0
        self._active: dict[Path, Job] = {}
        self._total = self._ended = 0
        self._live: Any = None

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the table while the block runs, where there is a terminal to show it on."""
        if self.quiet or not self.stream.isatty():
            yield
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self.stream)
        self._live = Live(
            get_renderable=self.table, console=console, refresh_per_second=1, redirect_stdout=False, transient=True
        )
        try:
            with self._live:
                yield
        finally:
            self._live = None

    def begin(self, jobs: Sequence[Job]) -> None:
        """These runs are about to be trained."""
        self._active = {job.path: job for job in jobs}
        self._total, self._ended = len(jobs), 0

    def end(self, job: Job, outcome: Outcome, value: float | None, seconds: float | None) -> None:
        """A run has ended."""
        self._active.pop(job.path, None)
        self._ended += 1
        self.take(job, value)
        took = "" if seconds is None else f", {seconds:.{1 if seconds < 10 else 0}f} s of training"
        what = f"seed {job.config.seed}" if job.trial is None else f"trial {job.trial + 1} of {self.trials}"
        came = self.metric.title if job.trial is None else "validation accuracy"
        shown = f"{value:.1%}" if job.trial is not None and value is not None else self.metric.value(value)
        text = f"{came} {shown}{took}" if outcome.status == "finished" else f"failed: {outcome.why}"
        self.note(f"[{self._ended}/{self._total}] {job.label}, {what}: {text}")

    def take(self, job: Job, value: float | None) -> None:
        """Takes in the result of a run; None where it has failed."""
        if job.trial is not None:
            self.searched[job.label] = self.searched.get(job.label, 0) + 1
        elif value is None:
            self.failed[job.label] += 1
        else:
            self.values[job.label][job.config.seed] = value

    def note(self, text: str) -> None:
        """A line that stays."""
        if self.quiet:
            return
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    def table(self) -> Any:
        """The table as it stands."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        table.add_column("configuration", overflow="fold")
        if self.trials:
            table.add_column("trials", justify="right")
        table.add_column("runs", justify="right")
        table.add_column(self.metric.title, justify="right")
        table.add_column("difference", justify="right")
        table.add_column("now")
        for member in self.members:
            label = member.label
            cells = [escape(label)]
            if self.trials:
                cells.append(f"{self.searched.get(label, 0)}/{self.trials}")
            found = list(self.values[label].values())
            failures = f", {self.failed[label]} failed" if self.failed[label] else ""
            cells.append(f"{len(found)}/{len(self.seeds)}{failures}")
            cells.append(self.metric.value(sum(found) / len(found)) if found else "")
            cells += [self._difference(label), self._now(label)]
            table.add_row(*cells)
        return table

    def _difference(self, label: str) -> str:
        if label == self.baseline:
            return "baseline"
        ours, theirs = self.values[label], self.values[self.baseline]
        differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        if not differences:
            return ""
        mean = self.metric.difference(sum(differences) / len(differences), sign=True)
        if len(differences) < 2:
            return mean
        return f"{mean} ({self.metric.differences(*interval(differences), sign=True)})"

    def _now(self, label: str) -> str:
        """Which of the runs are under way, and how far they are."""
        at = []
        for job in list(self._active.values()):
            if job.label != label or not job.mark.exists():
                continue
            name = f"seed {job.config.seed}" if job.trial is None else f"trial {job.trial + 1}"
            at.append(f"{name}: epoch {_epochs(job.path)}/{job.config.epochs}")
        return ", ".join(at)


def _epochs(path: Path) -> int:
    """Epochs that a run has behind it."""
    try:
        lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return int(json.loads(lines[-1])["epoch"])
    except (OSError, ValueError, KeyError, IndexError):
        return 0
