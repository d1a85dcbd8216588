"""Training a finished run for longer."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from repertoire.errors import ConfigError, RunError, option, resuming

if TYPE_CHECKING:
    from repertoire.train._run import Run

__all__ = ["extend", "wait_for"]


def extend(run: Run, epochs: int, patience: int | None, plugins: tuple[str, ...], quiet: bool) -> Run:
    """Trains a finished run for longer; see `Run.extend`, whose arguments these are.

    Raises:
        RunError: the run is not finished, or its data changed. ConfigError: it has as many epochs already.
    """
    from repertoire.train._fit import resume

    changes: dict[str, Any] = {"epochs": epochs} | ({} if patience is None else {"patience": patience})
    if int(os.environ.get("RANK", "0")) and "LOCAL_RANK" in os.environ:
        wait_for(run, changes)
        return resume(run.path, quiet=quiet, plugins=plugins)
    done = int(run.info.get("epochs", run.config.epochs))
    if run.info["status"] != "finished":
        raise RunError(f"{run.directory} is {run.info['status']}; finish it first: {resuming(run.path)}")
    if epochs <= run.config.epochs and epochs <= done:
        raise ConfigError(f"epochs is {epochs}, and {run.directory} has had {done} of {run.config.epochs} already")
    waited = done - int(run.metrics.get("best_epoch", done))
    limit = patience if patience is not None else run.config.patience
    if limit is not None and waited >= limit:
        raise ConfigError(
            f"{run.directory} had no better epoch for {waited} epochs and would stop at once: give "
            f"{option('patience')}, more than {waited}"
        )
    extended = [*run.info.get("extended", []), {"from": done, "to": epochs}]
    # In this order: whatever ends the process in between, the run is either as it was, or can be resumed.
    run.directory.write_info({**run.info, "status": "interrupted", "extended": extended, "reason": "extended"})
    run.directory.write_config(run.config.model_copy(update=changes))
    return resume(run.path, quiet=quiet, plugins=plugins)


def wait_for(run: Run, changes: dict[str, Any], seconds: float = 60.0) -> None:
    """Under a launcher, waits until the first process has changed the configuration."""
    end = time.monotonic() + seconds
    while any(getattr(run.directory.read_config(), name) != value for name, value in changes.items()):
        if time.monotonic() > end:
            raise RunError(f"the first process did not extend {run.directory}; it says why")
        time.sleep(0.1)
