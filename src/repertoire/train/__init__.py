"""One run: configuration, loop, checkpoints, resuming, evaluation, export.

    run = repertoire.train.fit("photos/", backbone="resnet32", epochs=30)
    run.metrics["accuracy"]
    run.predict(["new.jpg"])

Names are imported when they are first used: the command line reads the configuration's fields, and must not wait for
torch to show its help.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repertoire.train._config import TrainConfig, make_config, read_config
    from repertoire.train._export import export
    from repertoire.train._fit import fit, rehearse, resume
    from repertoire.train._loop import Loop
    from repertoire.train._metrics import Outputs, calibration, outputs, score, wilson
    from repertoire.train._plan import Plan, PlanRow, plan
    from repertoire.train._run import Run, load, top

_HOME = {
    "Loop": "_loop",
    "Outputs": "_metrics",
    "Run": "_run",
    "Plan": "_plan",
    "PlanRow": "_plan",
    "TrainConfig": "_config",
    "calibration": "_metrics",
    "export": "_export",
    "fit": "_fit",
    "load": "_run",
    "make_config": "_config",
    "outputs": "_metrics",
    "plan": "_plan",
    "read_config": "_config",
    "rehearse": "_fit",
    "resume": "_fit",
    "score": "_metrics",
    "top": "_run",
    "wilson": "_metrics",
}

__all__ = [
    "Loop",
    "Outputs",
    "Plan",
    "PlanRow",
    "Run",
    "TrainConfig",
    "calibration",
    "export",
    "fit",
    "load",
    "make_config",
    "outputs",
    "plan",
    "read_config",
    "rehearse",
    "resume",
    "score",
    "top",
    "wilson",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"repertoire.train.{_HOME[name]}"), name)
    raise AttributeError(f"module 'repertoire.train' has no attribute {name!r}")
