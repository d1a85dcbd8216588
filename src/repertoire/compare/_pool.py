"""Running jobs side by side, here or on a cluster: a worker may die, and Ctrl-C leaves everything resumable."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repertoire.compare._cluster import Backend, check_backend, cluster
from repertoire.compare._folder import Folder
from repertoire.compare._jobs import Job, Outcome, execute, ready
from repertoire.errors import ConfigError, Interrupted, RunError, option
from repertoire.train import interruptible

__all__ = ["Crew", "dismiss", "run_jobs", "warm_up"]

ASK_EVERY = 1.0
"""Seconds between two looks at how many workers a cluster has."""


@dataclass(frozen=True)
class Crew:
    """Worker pool.

    Attributes:
        backend: "loky", processes on this machine; "ray" or "dask", those of a cluster.
        workers: how many runs at once; 1 with "loky" means this process. None means one for each core here that
            `threads` leaves room for, and whatever a cluster has.
        threads: for each run.
        gpu: whether each run takes a GPU of a cluster, where that has any.
    """

    backend: Backend = "loky"
    workers: int | None = None
    threads: int = 1
    gpu: bool = False

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{'jobs' if name == 'workers' else name} is {value}; it must be 1 or more")

    def resolved(self, device: str, asked: str = "auto") -> Crew:
        """Settles the number of workers: one where a GPU does the work, which runs would have to share.

        Args:
            device: of this machine that runs would take, "cpu" or "cuda".
            asked: device of the configuration; machines of a cluster have others than this one.
        """
        if self.backend != "loky":
            return replace(self, gpu=asked != "cpu")
        if self.workers is not None:
            return self
        from joblib import cpu_count  # which knows of the limits of containers

        return replace(self, workers=1 if device == "cuda" else max(1, cpu_count() // self.threads))

    def require(self) -> None:
        """Raises `UnknownName` where there is no such backend, and `MissingExtra` where it is not installed."""
        check_backend(self.backend)


def run_jobs(jobs: Sequence[Job], crew: Crew, folder: Folder, done: Callable[[Job, Outcome], None]) -> None:
    """Runs all jobs, and calls `done` with each as it ends, however it ends.

    A worker that is killed (by the system, when memory is short) takes the others of this machine with it, and it does
    not say which run it was at. Those that were under way go on one at a time, each with a worker to itself, and only
    one that dies again has failed. On a cluster a worker dies alone; its run goes on with another, and has failed when
    that one dies, too.

    Raises:
        Interrupted: the user pressed Ctrl-C; every run can go on.
    """
    if not jobs:
        return
    if crew.workers == 1 and crew.backend == "loky":
        _in_turn(jobs, done)
        return
    if crew.backend != "loky":
        with _stoppable(folder, crew):
            _on_cluster(jobs, crew, folder, done)
        return
    waiting = {job.path: job for job in jobs}
    suspects: list[Job] = []
    with _stoppable(folder, crew):
        while waiting:
            batch = suspects[:1] or list(waiting.values())
            try:
                for outcome in _stream(batch, crew):
                    if outcome.status != "interrupted":
                        done(waiting.pop(outcome.path), outcome)
                suspects = suspects[1:]
            except _broken() as error:
                _refuse_if_stopped(folder)
                left = [job for job in batch if job.mark.exists()]
                if not left:
                    raise RunError(f"the worker processes ended before they began: {error}") from error
                for job in left:
                    job.mark.unlink(missing_ok=True)
                if suspects:
                    suspects = suspects[1:]
                    del waiting[left[0].path]
                    done(left[0], Outcome(left[0].path, "failed", _killed()))
                else:
                    suspects = [job for job in left if job.path in waiting]
            _refuse_if_stopped(folder)


STOPPED = "stopped; every run can go on: give the same command again"


def _killed() -> str:
    return (
        f"its process was killed, most likely because memory ran out: try fewer {option('jobs')}, "
        f"{option('accumulate')}, or a smaller network"
    )


def _in_turn(jobs: Sequence[Job], done: Callable[[Job, Outcome], None]) -> None:
    """In this process, whose training loop looks after Ctrl-C itself."""
    for job in jobs:
        try:
            outcome = execute(job, worker=False)
        except KeyboardInterrupt:
            raise Interrupted(STOPPED) from None
        if outcome.status == "interrupted":
            raise Interrupted(STOPPED)
        done(job, outcome)


def _on_cluster(jobs: Sequence[Job], crew: Crew, folder: Folder, done: Callable[[Job, Outcome], None]) -> None:
    """No more at once than there are workers, so that whatever a worker takes along with it had been begun."""
    assert crew.backend != "loky"
    took: dict[str, float] = {}
    order = in_order(jobs, took)
    again: list[Job] = []
    died: set[Path] = set()
    at_work: dict[Future[Outcome], Job] = {}
    with cluster(crew.backend, threads=crew.threads, gpu=crew.gpu) as workers:
        try:
            while True:
                _refuse_if_stopped(folder, at_work)
                while len(at_work) < (crew.workers or workers.slots) and not folder.stop_file.exists():
                    job = again.pop() if again else next(order, None)
                    if job is None:
                        break
                    at_work[workers.submit(execute, job)] = job
                if not at_work:
                    return
                # Now and then it is asked whether the cluster has grown.
                for future in wait(at_work, timeout=ASK_EVERY, return_when=FIRST_COMPLETED).done:
                    job = at_work.pop(future)
                    try:
                        outcome = future.result()
                    except BrokenExecutor:
                        if job.path in died:
                            done(job, Outcome(job.path, "failed", _killed(), node=job.died_on()))
                        else:
                            died.add(job.path)
                            again.append(job)
                        job.mark.unlink(missing_ok=True)
                        continue
                    if outcome.status == "finished":
                        took[job.label] = outcome.seconds
                    if outcome.status != "interrupted":
                        done(job, outcome)
        finally:
            for future in at_work:
                future.cancel()


def _stream(jobs: Sequence[Job], crew: Crew) -> Iterator[Outcome]:
    """Outcomes as they come."""
    from joblib import Parallel, delayed

    labels = {job.path: job.label for job in jobs}
    took: dict[str, float] = {}
    tasks = (delayed(execute)(job) for job in in_order(jobs, took))
    with _backend(crew, len(jobs)):
        for outcome in Parallel(return_as="generator_unordered", batch_size=1)(tasks):
            if outcome.status == "finished":
                took[labels[outcome.path]] = outcome.seconds
            yield outcome


def in_order(jobs: Sequence[Job], took: Mapping[str, float]) -> Iterator[Job]:
    """Seed by seed; and of one seed what is known to take long first, so that in the end no worker waits for long.

    Args:
        jobs: those of a seed beside each other.
        took: how long runs of a configuration took, by label; looked at anew for each job.
    """
    left = list(jobs)
    while left:
        seed = left[0].config.seed
        job = max((job for job in left if job.config.seed == seed), key=lambda job: took.get(job.label, math.inf))
        left.remove(job)
        yield job


def _backend(crew: Crew, jobs: int) -> Any:
    from joblib import parallel_config

    # Never one: joblib would take this process for it, which must outlive a run that is killed.
    workers = max(2, min(crew.workers or 1, jobs))
    return parallel_config("loky", n_jobs=workers, inner_max_num_threads=crew.threads)


def _broken() -> type[BaseException]:
    from joblib.externals.loky.process_executor import BrokenProcessPool

    return BrokenProcessPool


def _refuse_if_stopped(folder: Folder, at_work: Sized = ()) -> None:
    """Once nothing is at work any more."""
    if folder.stop_file.exists() and not at_work:
        raise Interrupted(STOPPED)


@contextlib.contextmanager
def _stoppable(folder: Folder, crew: Crew) -> Iterator[None]:
    """Turns the first Ctrl-C (or SIGTERM) into a request to save and stop, and the second into an end at once."""

    def request() -> None:
        folder.stop_file.touch()
        print("stopping after this step; press Ctrl-C again to stop at once", file=sys.stderr)
        if crew.backend == "loky":
            for mark in folder.marks.iterdir():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    os.kill(int(mark.read_text(encoding="utf-8", errors="replace").splitlines()[0]), signal.SIGTERM)

    try:
        with interruptible(request):
            yield
    except KeyboardInterrupt:
        raise Interrupted(STOPPED) from None


def warm_up(crew: Crew, jobs: int) -> threading.Thread | None:
    """Starts the workers in the background: they import what they need while this process looks at the grid.

    Args:
        crew: who does the work.
        jobs: how many there are at most.

    Returns:
        A thread that has to be joined before `run_jobs`; None where there are no workers to start.
    """
    if crew.backend != "loky" or crew.workers == 1 or not jobs:
        return None

    def start() -> None:
        from joblib import Parallel, delayed

        # A worker that is gone by now is replaced when it is needed.
        with contextlib.suppress(_broken()), _backend(crew, jobs):
            Parallel(batch_size=1)(delayed(ready)() for _ in range(min(crew.workers or 1, jobs)))

    thread = threading.Thread(target=start, name="warm-up", daemon=True)
    thread.start()
    return thread


def dismiss(crew: Crew) -> None:
    """Ends the workers on this machine, which would hold their memory for minutes."""
    if crew.backend == "loky" and crew.workers != 1:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)
