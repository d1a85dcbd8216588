"""One run of many: what a worker is given, what it does, and what it says in the end."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import os
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from repertoire.compare._cluster import node
from repertoire.data import Splits
from repertoire.errors import Interrupted, RepertoireError
from repertoire.recipe import TrainConfig, import_plugins, load_splits
from repertoire.train import complete, interrupt

__all__ = ["Job", "Outcome", "execute", "explained", "forget_splits", "ready", "splits_of"]

STOP_EVERY = 0.5
"""Seconds between two looks of a worker of a cluster at whether it is to stop."""


@dataclass(frozen=True)
class Job:
    """A run to be trained.

    Attributes:
        label: of its configuration.
        config: all of it.
        path: where the run lies.
        marks: the directory in which a worker says that it is at work.
        stop: a file that, once it exists, tells workers to begin nothing.
        threads: that the run may use.
        trial: number of the trial, for runs of a search.
    """

    label: str
    config: TrainConfig
    path: Path
    marks: Path
    stop: Path
    threads: int = 1
    trial: int | None = None

    @property
    def mark(self) -> Path:
        return self.marks / hashlib.blake2b(os.fsencode(self.path), digest_size=8).hexdigest()

    def died_on(self) -> str:
        """Node of a cluster on which the process died that was at this run; empty where it is not known, or was one of
        this machine."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            return self.mark.read_text(encoding="utf-8", errors="replace").splitlines()[2]
        return ""


@dataclass(frozen=True)
class Outcome:
    """End of a run: how, of a failed one why, how long it kept its worker, in seconds, and on which node of a cluster
    it was."""

    path: Path
    status: Literal["finished", "failed", "interrupted"]
    reason: str = ""
    seconds: float = 0.0
    node: str = ""

    @property
    def why(self) -> str:
        """Reason of a failure, with the node."""
        return f"{self.reason}, on {self.node}" if self.node else self.reason


def execute(job: Job, worker: bool = True) -> Outcome:
    """Trains a run, or goes on with it. Failures come back as values: the other runs go on.

    Args:
        job: the run.
        worker: whether this is a process of its own. It leaves the group of the one that started it: Ctrl-C in a
            terminal goes to the whole group, and it is for the parent to say who stops. What starts the workers of a
            cluster keeps its own order among them.
    """
    if job.stop.exists():
        return Outcome(job.path, "interrupted")
    if worker and os.name == "posix" and not node():
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
    start, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        with _marked(job), _obedient(job), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _release_memory()
            _train(job)
        return Outcome(job.path, "finished", seconds=time.perf_counter() - start, node=node())
    except Interrupted:
        return Outcome(job.path, "interrupted")
    except Exception as error:
        return Outcome(job.path, "failed", explained(error), node=node())
    finally:
        torch.set_num_threads(threads)


def ready() -> None:
    """Does nothing; but a worker that has done it has imported everything that a run takes."""


def explained(error: Exception) -> str:
    """Message of an error, on one line; of what was not raised on purpose, its kind as well."""
    text = " ".join(str(error).split())
    return text if isinstance(error, RepertoireError) else f"{type(error).__name__}: {text}"


def splits_of(config: TrainConfig) -> Splits:
    """The images of a configuration. Those of the last one are kept: runs of one seed, which have the same, follow each
    other."""
    import_plugins(config)
    c = config
    key = (c.data, c.size, c.fit, c.seed, c.val, c.test, c.fold, c.skip_unreadable, c.download, c.cache)
    if key not in _LOADED:
        _LOADED.clear()
        _LOADED[key] = load_splits(config)
    return _LOADED[key]


def forget_splits() -> None:
    """Lets go of the images: the next comparison may find others at the same place."""
    _LOADED.clear()


_LOADED: dict[tuple[object, ...], Splits] = {}


def _train(job: Job) -> None:
    complete(job.config, job.path, splits=splits_of(job.config))


@contextlib.contextmanager
def _marked(job: Job) -> Iterator[None]:
    """Leaves a file with the number and the node of this process while it works; that of a process that was killed
    stays."""
    job.marks.mkdir(parents=True, exist_ok=True)
    job.mark.write_text(f"{os.getpid()}\n{job.path}\n{node()}\n", encoding="utf-8", errors="surrogateescape")
    try:
        yield
    finally:
        job.mark.unlink(missing_ok=True)


@contextlib.contextmanager
def _obedient(job: Job) -> Iterator[None]:
    """On a cluster, where no signal reaches: saves and stops the run once the stop file exists."""
    if not node():
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(STOP_EVERY):
            if job.stop.exists():
                interrupt()
                return

    watcher = threading.Thread(target=watch, name="watch-stop-file", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _release_memory() -> None:
    """Gives back what the last run left with the allocator, or the peak of this one would seem larger than it is."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
