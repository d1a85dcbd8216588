"""Metrics to TensorBoard, MLflow and Weights & Biases, when asked for. metrics.jsonl is written always, by the loop.

A tracker only watches: one that fails, because its server went away or its disk is full, is named once and dropped, and
the run goes on.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from repertoire.errors import MissingExtra, RepertoireWarning
from repertoire.files import write_text
from repertoire.recipe import TrainConfig
from repertoire.train._directory import RunDirectory

__all__ = ["TRACKERS", "Callback", "Tracker", "check_trackers", "make_trackers", "watching"]

Callback = Callable[[dict[str, Any]], object]
"""What is called with the row of every epoch."""

TRACKERS = {"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
"""Trackers by name, and the module that each needs."""


class Tracker(Protocol):
    """Takes the numbers of an epoch."""

    def log(self, row: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class _TensorBoard:
    def __init__(self, directory: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What a crashed session logged after the checkpoint is done again, and shown once.
        folder = directory / "tensorboard"
        before = set(folder.glob("*"))
        self.writer = SummaryWriter(str(folder), purge_step=step or None)
        RunDirectory(directory).record(*(set(folder.glob("*")) - before), growing=True)

    def log(self, row: dict[str, Any]) -> None:
        for name, value in _numbers(row).items():
            self.writer.add_scalar(name, value, row["step"])
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class _MLflow:
    def __init__(self, directory: Path, config: TrainConfig) -> None:
        import mlflow

        self.mlflow = mlflow
        # Inside a run of the user's own (a notebook's, a sweep's) ours is a child of it.
        nested = mlflow.active_run() is not None
        known = directory / "mlflow_run_id"
        if known.exists():
            mlflow.start_run(run_id=known.read_text(encoding="utf-8").strip(), nested=nested)
            return
        write_text(known, mlflow.start_run(run_name=directory.name, nested=nested).info.run_id)
        RunDirectory(directory).record(known)
        mlflow.log_params(config.model_dump(mode="json"))

    def log(self, row: dict[str, Any]) -> None:
        self.mlflow.log_metrics(_numbers(row), step=row["step"])

    def close(self) -> None:
        self.mlflow.end_run()


class _WandB:
    def __init__(self, directory: Path, config: TrainConfig) -> None:
        import wandb

        known = directory / "wandb_run_id"
        before = known.read_text(encoding="utf-8").strip() if known.exists() else None
        # A user's own settings, such as WANDB_PROJECT and WANDB_MODE, come first.
        self.run = wandb.init(
            project=None if os.environ.get("WANDB_PROJECT") else "repertoire",
            name=directory.resolve().name,
            id=before,
            resume="allow",
            reinit="create_new",
            config=config.model_dump(mode="json"),
        )
        if before is None:
            write_text(known, str(self.run.id))
            RunDirectory(directory).record(known)

    def log(self, row: dict[str, Any]) -> None:
        self.run.log(_numbers(row), step=row["step"])

    def close(self) -> None:
        self.run.finish()


class _Watched:
    """A tracker that is dropped when it fails."""

    def __init__(self, name: str, make: Callable[[], Tracker]) -> None:
        self.name = name
        self.tracker: Tracker | None = None
        with self._forgiven():
            self.tracker = make()

    def log(self, row: dict[str, Any]) -> None:
        with self._forgiven():
            if self.tracker is not None:
                self.tracker.log(row)

    def close(self) -> None:
        with self._forgiven():
            if self.tracker is not None:
                self.tracker.close()

    @contextlib.contextmanager
    def _forgiven(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a library raises when its server is gone
            self.tracker = None
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            warnings.warn(
                f"{self.name} failed ({reason}) and gets no more rows; the run goes on, and metrics.jsonl has all",
                RepertoireWarning,
                stacklevel=3,
            )


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float) and name != "step"}


def check_trackers(config: TrainConfig) -> None:
    """Raises `MissingExtra` if a tracker that the configuration names is not installed."""
    for name in config.track:
        try:
            importlib.import_module(TRACKERS[name])
        except ImportError:
            raise MissingExtra("wandb" if name == "wandb" else "track", f"track {name!r}") from None


def make_trackers(config: TrainConfig, directory: Path, step: int) -> list[Tracker]:
    """The trackers that the configuration names, going on after `step` steps."""
    makers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: _TensorBoard(directory, step),
        "mlflow": lambda: _MLflow(directory, config),
        "wandb": lambda: _WandB(directory, config),
    }
    return [_Watched(name, makers[name]) for name in config.track]


class _Calling:
    """A function of the user's own as a tracker."""

    def __init__(self, call: Callback) -> None:
        self.call = call

    def log(self, row: dict[str, Any]) -> None:
        self.call(dict(row))

    def close(self) -> None:
        pass


def watching(callbacks: Sequence[Callback]) -> list[Tracker]:
    """Functions of the user's own, each dropped when it fails."""

    def named(call: Callback) -> str:
        return f"the callback {getattr(call, '__name__', None) or type(call).__name__}"

    return [_Watched(named(call), partial(_Calling, call)) for call in callbacks]
