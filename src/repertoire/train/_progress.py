"""How far a run is, and which of its epochs counts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from repertoire.errors import CheckpointError
from repertoire.recipe import TrainConfig, is_pretrained, only_head
from repertoire.tasks import Task

__all__ = ["Progress", "later_counts"]


@dataclass
class Progress:
    """Progress of a run: plain numbers, stored in the checkpoint."""

    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Steps done of the epoch in progress."""
    total_steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of the logs over the images of the epoch in progress, of all processes, and their number as "images"."""
    best: dict[str, float] = field(default_factory=dict)
    """The validation metrics of the best epoch so far; empty before the first one."""
    best_epoch: int = 0
    highest: float = 0.0
    """The highest validation accuracy so far, where later epochs of nearly the same accuracy count."""
    rate: float = 1.0
    """What the learning rate is multiplied by; less than one once the first steps have diverged."""
    first_loss: float | None = None
    """Loss of the first step, by which the next ones are told to diverge."""
    seconds: float = 0.0
    """Training time, all sessions together."""
    ended: bool = False
    """Whether the method has ended its stage, of a run that is one of several."""

    @classmethod
    def stored(cls, values: dict[str, Any]) -> Progress:
        """Reads the progress in a checkpoint, of version 0.1.0 as well.

        Raises:
            CheckpointError: it says something that this version does not know.
        """
        values = dict(values)
        accuracy, nll = values.pop("best_accuracy", -1.0), values.pop("best_nll", math.inf)
        if "best" not in values and accuracy >= 0:
            values["best"] = {"accuracy": accuracy, "nll": nll}
        unknown = sorted(values.keys() - {f.name for f in fields(cls)})
        if unknown:
            raise CheckpointError(
                f"the progress holds {', '.join(unknown)}, which a newer version of Repertoire wrote; upgrade to go on"
            )
        return cls(**values)


def later_counts(config: TrainConfig, task: Task) -> bool:
    """Whether a later epoch takes the place of the best one unless its validation accuracy is worse by more than a
    standard error, and not only if it is better.

    What begins with a pretrained network, or is a head on features, converges: its later weights are the better ones,
    and which epoch happens to be right about one more of twenty validation images says nothing. It is so unless
    patience was asked for or the learning rate stays.
    """
    converges = config.schedule == "cosine" and (only_head(config) or is_pretrained(config))
    return converges and config.patience is None and task.best.key == "accuracy"
