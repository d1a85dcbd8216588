"""Metrics to TensorBoard and MLflow, when asked for. metrics.jsonl is written always, by the loop."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from repertoire.errors import MissingExtra
from repertoire.files import write_text
from repertoire.train._config import TrainConfig

__all__ = ["Tracker", "check_trackers", "make_trackers"]


class Tracker(Protocol):
    """Takes the numbers of an epoch."""

    def log(self, row: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class _TensorBoard:
    def __init__(self, directory: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What a crashed session logged after the checkpoint is done again, and shown once.
        self.writer = SummaryWriter(str(directory / "tensorboard"), purge_step=step or None)

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
        known = directory / "mlflow_run_id"
        if known.exists():
            mlflow.start_run(run_id=known.read_text(encoding="utf-8").strip())
            return
        write_text(known, mlflow.start_run(run_name=directory.name).info.run_id)
        mlflow.log_params(config.model_dump(mode="json"))

    def log(self, row: dict[str, Any]) -> None:
        self.mlflow.log_metrics(_numbers(row), step=row["step"])

    def close(self) -> None:
        self.mlflow.end_run()


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float) and name != "step"}


def check_trackers(config: TrainConfig) -> None:
    """Raises `MissingExtra` if a tracker that the configuration names is not installed."""
    for name in config.track:
        try:
            importlib.import_module({"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow"}[name])
        except ImportError:
            raise MissingExtra("track", f"track {name!r}") from None


def make_trackers(config: TrainConfig, directory: Path, step: int) -> list[Tracker]:
    """The trackers that the configuration names, going on after `step` steps."""
    makers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: _TensorBoard(directory, step),
        "mlflow": lambda: _MLflow(directory, config),
    }
    return [makers[name]() for name in config.track]
