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

from repertoire._aliases import answer_calls

if TYPE_CHECKING:
    from repertoire.plan import Plan as Plan
    from repertoire.plan import PlanRow as PlanRow
    from repertoire.plan import plan as plan
    from repertoire.recipe import TrainConfig as TrainConfig
    from repertoire.recipe import make_config as make_config
    from repertoire.recipe import read_config as read_config
    from repertoire.tasks import Outputs as Outputs
    from repertoire.tasks import calibration as calibration
    from repertoire.tasks import score as score
    from repertoire.tasks import wilson as wilson
    from repertoire.train._answers import Answers as Answers
    from repertoire.train._carry import kept_checkpoints as kept_checkpoints
    from repertoire.train._carry import last_state as last_state
    from repertoire.train._compress import compress as compress
    from repertoire.train._concatenated import Concatenated as Concatenated
    from repertoire.train._directory import RunDirectory as RunDirectory
    from repertoire.train._display import Forgiving as Forgiving
    from repertoire.train._ensemble import Ensemble as Ensemble
    from repertoire.train._export import export as export
    from repertoire.train._fit import complete as complete
    from repertoire.train._fit import fit as fit
    from repertoire.train._fit import in_memory as in_memory
    from repertoire.train._fit import rehearse as rehearse
    from repertoire.train._fit import resume as resume
    from repertoire.train._folds import Folds as Folds
    from repertoire.train._folds import fit_folds as fit_folds
    from repertoire.train._folds import resume_folds as resume_folds
    from repertoire.train._interrupt import interrupt as interrupt
    from repertoire.train._interrupt import interruptible as interruptible
    from repertoire.train._labelled import Labelled as Labelled
    from repertoire.train._loop import Loop as Loop
    from repertoire.train._merge import merge as merge
    from repertoire.train._novelty import UNKNOWN as UNKNOWN
    from repertoire.train._novelty import Rejector as Rejector
    from repertoire.train._outputs import outputs as outputs
    from repertoire.train._probe import probe_outputs as probe_outputs
    from repertoire.train._progress import later_counts as later_counts
    from repertoire.train._run import Run as Run
    from repertoire.train._run import load as load
    from repertoire.train._run import top as top
    from repertoire.train._self_train import STUDENT as STUDENT
    from repertoire.train._self_train import SelfTraining as SelfTraining
    from repertoire.train._self_train import self_train as self_train
    from repertoire.train._stitch import stitch_runs as stitch_runs

_HOME = {
    "repertoire.plan": ("Plan", "PlanRow", "plan"),
    "repertoire.recipe": ("TrainConfig", "make_config", "read_config"),
    "repertoire.tasks": ("Outputs", "calibration", "score", "wilson"),
    "repertoire.train._answers": ("Answers",),
    "repertoire.train._carry": ("kept_checkpoints", "last_state"),
    "repertoire.train._compress": ("compress",),
    "repertoire.train._concatenated": ("Concatenated",),
    "repertoire.train._directory": ("RunDirectory",),
    "repertoire.train._display": ("Forgiving",),
    "repertoire.train._ensemble": ("Ensemble",),
    "repertoire.train._export": ("export",),
    "repertoire.train._fit": ("complete", "fit", "in_memory", "rehearse", "resume"),
    "repertoire.train._folds": ("Folds", "fit_folds", "resume_folds"),
    "repertoire.train._interrupt": ("interrupt", "interruptible"),
    "repertoire.train._labelled": ("Labelled",),
    "repertoire.train._loop": ("Loop",),
    "repertoire.train._merge": ("merge",),
    "repertoire.train._novelty": ("UNKNOWN", "Rejector"),
    "repertoire.train._outputs": ("outputs",),
    "repertoire.train._probe": ("probe_outputs",),
    "repertoire.train._progress": ("later_counts",),
    "repertoire.train._run": ("Run", "load", "top"),
    "repertoire.train._self_train": ("STUDENT", "SelfTraining", "self_train"),
    "repertoire.train._stitch": ("stitch_runs",),
}

__all__ = [name for names in _HOME.values() for name in names]


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'repertoire.train' has no attribute {name!r}")


answer_calls(__name__, "repertoire.fit(data, epochs=10) trains, and repertoire.load(directory) opens what was trained")
