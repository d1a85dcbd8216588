"""What a run has kept: the state that a stage of training hands on, and the checkpoints after its steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from repertoire.errors import CheckpointError, RunError
from repertoire.train import _checkpoint
from repertoire.train._directory import RunDirectory

__all__ = ["kept_checkpoints", "last_state"]


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


def kept_checkpoints(path: str | Path) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """The checkpoints of a run that are there and whole, the oldest first: the step, and all tensors by name.

    Those of the method begin with "method.", and of its moving average, where it has one, with "average."; what was
    frozen is in none of them. A damaged one is left out: who continues the run is told of it.

    Example:
        >>> import tempfile
        >>> from repertoire import train
        >>> with tempfile.TemporaryDirectory() as out:
        ...     run = train.fit("digits", backbone="convnet:width=4,depth=2", epochs=1, out=f"{out}/run", quiet=True)
        ...     ((step, tensors),) = train.kept_checkpoints(run.path)
        >>> step == run.info["steps"], "method.model.backbone.blocks.0.conv.weight" in tensors
        (True, True)
    """
    for file in reversed(_checkpoint.checkpoints(RunDirectory(path).checkpoints)):
        try:
            tensors = _checkpoint.load(file).tensors
        except CheckpointError:
            continue
        yield _checkpoint.step_of(file), tensors
