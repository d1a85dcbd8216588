"""What a run shows while it goes: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TextIO

__all__ = ["Display", "Forgiving", "duration"]


def duration(seconds: float) -> str:
    """A time in words, as well as it can be known beforehand.

    >>> duration(42.3), duration(200), duration(5000)
    ('42 s', '3 min', '1 h 23 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Forgiving:
    """A text stream for people that falls silent when nobody can be reached any more, instead of raising.

    A closed pipe, a full disk or a terminal that went away must not end what was only being watched.

    Args:
        stream: where to; None, which is what Python has for a standard stream that was closed, is silent.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.failed = stream is None

    def write(self, text: str) -> int:
        if not self.failed:
            try:
                self.stream.write(text)
            except UnicodeEncodeError:
                return self.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
            except (OSError, ValueError):  # ValueError: the stream was closed by this process
                self._fail()
        return len(text)

    def flush(self) -> None:
        if not self.failed:
            try:
                self.stream.flush()
            except (OSError, ValueError):
                self._fail()

    def _fail(self) -> None:
        self.failed = True
        standard = self.stream is sys.__stderr__
        if standard:
            # What is left in its buffer would fail once more when Python ends, and change the exit status.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.stream.fileno())
                os.close(null)

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return not self.failed and bool(self.stream.isatty())
        return False

    @property
    def encoding(self) -> str:
        return getattr(self.stream, "encoding", None) or "ascii"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


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
        self.stream = Forgiving(sys.stderr if stream is None else stream)
        self.noun = "image"
        """What one sample is called."""
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
                console=Console(file=self.stream),  # type: ignore[arg-type]
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
        """True if `step` will show its loss; reading it costs a wait for the device."""
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

    def epoch_ends(self, row: dict[str, Any], headline: Mapping[str, str] | None = None) -> None:
        """Shows an epoch.

        Args:
            row: what is written to the history.
            headline: which validation metrics to show, and how to write them.
        """
        shown = {"accuracy": "{:.1%}"} if headline is None else headline
        train = f"train {row['train_accuracy']:.1%}  " if "train_accuracy" in row and "accuracy" in shown else ""
        # Which epoch counts need not be the best one: see `later_counts`.
        best = "  kept so far" if row.get("best") else ""
        found = ", ".join(text.format(row[f"val_{key}"]) for key, text in shown.items() if f"val_{key}" in row)
        self.note(
            f"epoch {row['epoch']:>3}/{self.epochs}  loss {row['train_loss']:.4f}  {train}"
            f"validation {found}  {row['images_per_second']:.0f} {self.noun}s/s{best}"
        )

    def note(self, text: str) -> None:
        """A line that stays."""
        if self.quiet:
            return
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            self.stream.write(text + "\n")
            self.stream.flush()
