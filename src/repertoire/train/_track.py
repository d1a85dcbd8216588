"""Metrics to TensorBoard and MLflow, when asked for. metrics.jsonl is written always, by the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from repertoire.errors import MissingExtra
from repertoire.train._config import TrainConfig

__all__ = ["Tracker", "make_trackers"]


class Tracker(Protocol):
    """Takes the numbers of an epoch."""

    def log(self, row: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class _TensorBoard:
    def __init__(self, directory: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra("track", "track 'tensorboard'") from None
        self.writer = SummaryWriter(str(directory / "tensorboard"))

    def log(self, row: dict[str, Any]) -> None:
        for name, value in _numbers(row).items():
            self.writer.add_scalar(name, value, row["step"])
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class _MLflow:
    def __init__(self, directory: Path, config: TrainConfig) -> None:
        try:
            import mlflow
        except ImportError:
            raise MissingExtra("track", "track 'mlflow'") from None
        self.mlflow = mlflow
        mlflow.start_run(run_name=directory.name)
        mlflow.log_params(config.model_dump(mode="json"))

    def log(self, row: dict[str, Any]) -> None:
        self.mlflow.log_metrics(_numbers(row), step=row["step"])

    def close(self) -> None:
        self.mlflow.end_run()


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float) and name != "step"}


def make_trackers(config: TrainConfig, directory: Path) -> list[Tracker]:
    """The trackers that the configuration names.

    Raises:
        MissingExtra: one of them is not installed.
    """
    makers = {"tensorboard": lambda: _TensorBoard(directory), "mlflow": lambda: _MLflow(directory, config)}
    return [makers[name]() for name in config.track]
