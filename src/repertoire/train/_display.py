"""What a run shows while it goes: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self, TextIO

__all__ = ["Display"]


class Display:
    """One line an epoch, and on a terminal a bar below them.

    Args:
        epochs: how many there will be.
        steps: steps of an epoch.
        quiet: show nothing (other ranks; a run inside a program).
        stream: where to; standard error by default, so that standard output stays clean for results.
    """

    def __init__(self, epochs: int, steps: int, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.epochs = epochs
        self.steps = steps
        self.quiet = quiet
        self.stream = stream or sys.stderr
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if not self.quiet and self.stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps, loss {task.fields[loss]}"),
                TimeRemainingColumn(),
                console=Console(file=self.stream),
                transient=True,
            )
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    @property
    def wants_loss(self) -> bool:
        """Whether `step` will show its loss; reading it costs a wait for the device."""
        return self._progress is not None

    def epoch_starts(self, epoch: int, step: int) -> None:
        """Epoch number `epoch`, counted from 0, starts at step number `step`."""
        if self._progress is not None:
            if self._task is not None:
                self._progress.remove_task(self._task)
            title = f"epoch {epoch + 1}/{self.epochs}"
            self._task = self._progress.add_task(title, total=self.steps, completed=step, loss="-")

    def step(self, loss: float | None) -> None:
        if self._progress is not None:
            self._progress.update(self._task, advance=1, loss="-" if loss is None else f"{loss:.3f}")

    def epoch_ends(self, row: dict[str, Any]) -> None:
        train = f"train {row['train_accuracy']:.1%}  " if "train_accuracy" in row else ""
        best = "  best so far" if row.get("best") else ""
        self.note(
            f"epoch {row['epoch']:>3}/{self.epochs}  loss {row['train_loss']:.4f}  {train}"
            f"validation {row['val_accuracy']:.1%}  {row['images_per_second']:.0f} images/s{best}"
        )

    def note(self, text: str) -> None:
        """A line that stays."""
        if self.quiet:
            return
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.stream, flush=True)
