"""Where the weights of runs started, for whatever looks at what training has changed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from repertoire.errors import CheckpointError, ConfigError, RunError, ascii_path, option
from repertoire.losses import LogitsLoss
from repertoire.recipe import build_classifier

if TYPE_CHECKING:
    from repertoire.train._run import Run

__all__ = ["origin_of", "put_back", "weights_at"]

_SAID = "the weights that all runs started from"


def origin_of(runs: Sequence[Run], given: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """Where the weights of runs started: in a run that is given, or in what their configurations record.

    Returns:
        Either the directory of a `run`, or the `backbone` whose published weights they are.

    Raises:
        ConfigError: they started from different weights, or from none that can be found again.
    """
    if given is not None:
        return {"run": str(Path(given).resolve())}
    first = runs[0]
    starts = {(run.config.start, run.config.weights, run.config.from_scratch) for run in runs}
    if len(starts) > 1:
        raise ConfigError(f"the runs did not start from the same weights; say {_SAID}: {option('base', 'RUN')}")
    if first.config.start is not None:
        return {"run": str(Path(first.config.start).resolve())}
    if first.config.weights is not None or "pretrained" not in first.info.get("start", {}):
        whose = _SAID if len(runs) > 1 else "the weights that the run started from"
        raise ConfigError(f"this looks at what training has changed, and needs {whose}: {option('base', 'RUN')}")
    return {"backbone": first.config.backbone}


def weights_at(origin: Mapping[str, str], run: Run) -> dict[str, Tensor]:
    """The weights at an origin that the run's network has, too, on the CPU: all but those of heads, which begin anew.

    Raises:
        CheckpointError: the origin has no backbone of that kind.
        RunError: there is no run any more.
    """
    from repertoire.train._run import Run as Opened

    loss = run.loss if isinstance(run.loss, LogitsLoss) else None
    with torch.random.fork_rng(devices=[]):
        own = build_classifier(run.config, run.facts, loss=loss, pretrained="backbone" in origin).state_dict()
    own = {name: value for name, value in own.items() if not name.startswith("head.")}
    if "backbone" in origin:
        return own
    try:
        found = Opened(origin["run"]).model.state_dict()
    except RunError as error:
        raise RunError(
            f"{run.directory} is a change of the run {ascii_path(origin['run'])}, which cannot be opened: {error}"
        ) from None
    for name, value in own.items():
        if name not in found or found[name].shape != value.shape:
            raise CheckpointError(f"{ascii_path(origin['run'])} is no base of {run.directory}: its {name} differs")
    return {name: found[name] for name in own}


def put_back(origin: Mapping[str, str], run: Run, model: torch.nn.Module) -> None:
    """Gives a network of the run the weights at an origin."""
    model.load_state_dict({**model.state_dict(), **weights_at(origin, run)})
