"""What a stage of training hands on to the next one."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from repertoire.errors import RunError
from repertoire.train import _checkpoint
from repertoire.train._directory import RunDirectory

__all__ = ["last_state"]


def last_state(path: str | Path) -> dict[str, Tensor]:
    """All state of a finished run's method after its last step: network, memories, teachers.

    Raises:
        RunError: the directory is not a run, or the run is not finished.
        CheckpointError: its last checkpoint is missing or damaged.
    """
    directory = RunDirectory(path)
    info = directory.read_info()
    if info["status"] != "finished":
        raise RunError(f"{directory} is {info['status']}, and only a finished run has a last state")
    checkpoint = _checkpoint.load(_checkpoint.step_path(directory.checkpoints, info["steps"]))
    state = checkpoint.part("method")
    # What was frozen, and so is in no checkpoint of steps.
    for name, value in _checkpoint.load(directory.best_file).part("model").items():
        state.setdefault(f"model.{name}", value)
    return state
