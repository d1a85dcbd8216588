"""Running claims: seed by seed, on one thread each, until a look decides or the cost is spent."""

from __future__ import annotations

import dataclasses
import importlib
import math
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from repertoire.claims._arms import recording
from repertoire.claims._claim import (
    REDRAWN,
    Budget,
    BudgetName,
    Claim,
    ClaimError,
    Measured,
    entries,
    get,
    registered,
)
from repertoire.claims._evidence import decide, freshness, summarise
from repertoire.compare import Backend, Cluster, check_backend, cluster, node
from repertoire.errors import ConfigError
from repertoire.papers import Evidence, evidence
from repertoire.statistics import LOOKS

__all__ = ["Progress", "by_priority", "missing_or_stale", "run", "run_all"]

Progress = Callable[[str], None]

MOST_SECONDS = {"small": 20 * 60.0}
"""CPU time that a claim may take, all arms, looks and seeds together. Evidence that took more is not stored."""


class Timed(NamedTuple):
    """Figures of a seed, its CPU time, and the components that it had built."""

    measured: Measured
    seconds: float
    built: frozenset[str]


def run(
    name: str,
    budget: BudgetName = "small",
    *,
    store: bool = True,
    workers: int = 1,
    progress: Progress | None = None,
    folder: Path | None = None,
    data: str = "",
    backend: Backend = "loky",
) -> Evidence:
    """Measures a claim of a paper and decides whether it holds.

    Seeds are measured until one of the looks, after 5, 10 and 20 of them, decides.

    Args:
        name: the paper's slug, for its central claim; or slug and part, `squentropy:calibration`.
        budget: "smoke", "small" or "full".
        store: keep the evidence. That of the smoke budget, which decides nothing, is never kept, nor that of own data.
        workers: processes; 1 measures in this one. The figures do not depend on it.
        progress: called with a line of text after every seed.
        folder: where to store; by default the user's own folder of evidence.
        data: a data source of your own to measure on (a folder of images, say), where the claim permits it.
        backend: "loky", processes on this machine; "ray" or "dask", the workers of a cluster, all of them. The figures
            do not depend on it.

    Raises:
        UnknownName: no such claim, budget or backend.
        ConfigError: the budget needs a GPU and there is none, or the claim cannot be measured on other data.
        MissingExtra: the backend needs what is not installed.
        ClaimError: a seed failed, or it cost too much; nothing was stored.
    """
    claim = get(name)
    if data and not claim.own_data:
        others = ", ".join(entry.name for entry in entries() if entry.own_data)
        raise ConfigError(f"claim {name!r} makes its own data and cannot be measured on {data!r}; these can: {others}")
    (outcome,) = run_all(
        [claim],
        budget,
        store=store,
        workers=workers,
        progress=progress,
        folder=folder,
        data=data,
        backend=backend,
    )
    if isinstance(outcome, ClaimError):
        raise outcome
    return outcome


def run_all(
    claims: Sequence[Claim],
    budget: BudgetName = "small",
    *,
    store: bool = True,
    workers: int = 1,
    progress: Progress | None = None,
    folder: Path | None = None,
    data: str = "",
    minutes: float | None = None,
    backend: Backend = "loky",
) -> Iterator[Evidence | ClaimError]:
    """Measures several claims, and yields each one's evidence, or the reason why it has none, as it is known.

    All seeds of all claims are shared out among the workers. The arguments are those of `run`, and:

    Args:
        minutes: no claim is begun after so many minutes, nor one that took longer than what is left when it was last
            measured. What is finished is stored, so that the same call goes on another time.
    """
    check_backend(backend)
    chosen = Budget.named(budget, data)
    if data:
        claims = [dataclasses.replace(claim, overlap=REDRAWN) for claim in claims]
    most = MOST_SECONDS.get(chosen.name)
    options: dict[str, Any] = {"minutes": minutes, "folder": folder, "backend": backend}
    for state, failure in outcomes(claims, chosen, workers, progress or silent, **options):
        if failure is not None:
            yield failure
            continue
        if store and most is not None and state.seconds > most:
            yield ClaimError(
                f"claim {state.claim.name!r} took {state.seconds / 60:.0f} minutes of CPU time, and {most / 60:.0f} "
                f"are allowed at the budget {budget!r}; make it cheaper, or run it without storing"
            )
            continue
        result = summarise(state.claim, chosen, state.measured, state.seconds, state.built, state.stopped)
        if store and chosen.name != "smoke" and not data:
            result.write(folder)
        yield result


def missing_or_stale(budget: BudgetName = "small", *, folder: Path | None = None, aged: bool = False) -> list[Claim]:
    """The claims without evidence at this budget, or whose evidence was measured with another claim or component.

    Args:
        budget: of the evidence.
        folder: where it is; by default the evidence that comes with Repertoire.
        aged: count evidence in, of which only the trunk has changed.
    """
    wanted = []
    for claim in entries():
        found = evidence(claim.slug, budget, part=claim.part, folder=folder)
        if found is None or freshness(found, claim).state in (("stale", "aged") if aged else ("stale",)):
            wanted.append(claim)
    return wanted


def by_priority(claims: Sequence[Claim], budget: BudgetName, *, folder: Path | None = None) -> list[Claim]:
    """Central claims first; among these the ones without evidence, then stale, then aged ones; cheap before dear."""

    def rank(claim: Claim) -> tuple[bool, int, float]:
        found = evidence(claim.slug, budget, part=claim.part, folder=folder)
        state = 0 if found is None else {"stale": 1, "aged": 2, "fresh": 3}[freshness(found, claim).state]
        return bool(claim.part), state, _last_cost(claim, budget, folder)

    return sorted(claims, key=rank)


@dataclass
class _State:
    """A claim that is being measured."""

    claim: Claim
    budget: Budget
    one_seed: bool = False
    done: dict[int, Timed] = field(default_factory=dict)
    wanted: int = 1
    stopped: str = ""
    lost: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.one_seed = self.one_seed or self.budget.name == "smoke" or self.claim.exact
        self.wanted = 1 if self.one_seed else LOOKS[0]

    @property
    def measured(self) -> list[Measured]:
        return [timed.measured for _, timed in sorted(self.done.items())]

    @property
    def seconds(self) -> float:
        return math.fsum(timed.seconds for timed in self.done.values())

    @property
    def built(self) -> frozenset[str]:
        return frozenset().union(*(timed.built for timed in self.done.values()))

    def forgives(self, seed: int, pool: Executor) -> bool:
        """Whether a seed is measured once more whose worker died: on a cluster, where the others live on."""
        first = seed not in self.lost
        self.lost.add(seed)
        return first and isinstance(pool, Cluster)

    def more(self) -> range:
        """The seeds to measure next, once all that were wanted are done; none when it is decided or too dear."""
        later = [look for look in LOOKS if look > self.wanted]
        if self.one_seed or not later:
            return range(0)
        if decide(self.claim, self.budget, self.measured).verdict != "undecided":
            return range(0)
        most = MOST_SECONDS.get(self.budget.name, math.inf)
        if self.seconds / self.wanted * later[0] > most:
            self.stopped = f"{later[0]} seeds would take more than {most / 60:.0f} CPU minutes"
            return range(0)
        start, self.wanted = self.wanted, later[0]
        return range(start, self.wanted)


def outcomes(
    claims: Sequence[Claim],
    budget: Budget,
    workers: int,
    progress: Progress,
    minutes: float | None,
    folder: Path | None,
    one_seed: bool = False,
    backend: Backend = "loky",
) -> Iterator[tuple[_State, ClaimError | None]]:
    started = time.monotonic()

    def time_for(claim: Claim) -> bool:
        if minutes is None:
            return True
        left = 60 * minutes - (time.monotonic() - started)
        return left > 0 and _last_cost(claim, budget.name, folder) < left

    if workers > 1 or backend != "loky":
        states = [_State(claim, budget, one_seed) for claim in claims]
        with _workers(backend, workers, budget) as (pool, count):
            yield from _shared_out(states, pool, count, progress, time_for)
        return
    for claim in claims:
        if not time_for(claim):
            progress(f"{claim.name}: no time left for it")
            continue
        state = _State(claim, budget, one_seed)
        yield state, _in_turn(state, progress)


def _in_turn(state: _State, progress: Progress) -> ClaimError | None:
    seeds = range(state.wanted)
    while seeds:
        for seed in seeds:
            outcome = attempt(state.claim, state.budget, seed)
            if isinstance(outcome, ClaimError):
                return outcome
            state.done[seed] = outcome
            progress(line_of(state.claim, seed, state.wanted, outcome))
        seeds = state.more()
    return None


@contextmanager
def _workers(backend: Backend, count: int, budget: Budget) -> Iterator[tuple[Executor, int]]:
    """Processes of this machine, or the workers of a cluster, and their number."""
    if backend != "loky":
        with cluster(backend, gpu=budget.device != "cpu") as found:
            yield found, found.slots
        return
    # spawn: a forked child of a process that has used torch's threads can hang
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool, count
        finally:
            pool.shutdown(cancel_futures=True)


def _shared_out(
    states: Sequence[_State], pool: Executor, workers: int, progress: Progress, time_for: Callable[[Claim], bool]
) -> Iterator[tuple[_State, ClaimError | None]]:
    waiting = list(reversed(states))
    jobs: dict[Future[Timed | ClaimError], tuple[_State, int]] = {}

    def submit(state: _State, seeds: range) -> None:
        for seed in seeds:
            module, name = state.claim.function.__module__, state.claim.name
            jobs[pool.submit(_attempt_by_name, module, name, state.budget, seed)] = (state, seed)

    try:
        while waiting or jobs:
            # Not all at once: what is begun is finished, also where time runs out.
            while waiting and len(jobs) < 2 * workers:
                state = waiting.pop()
                if time_for(state.claim):
                    submit(state, range(state.wanted))
                else:
                    progress(f"{state.claim.name}: no time left for it")
            finished, _ = wait(jobs, return_when=FIRST_COMPLETED)
            for job in finished:
                if job not in jobs:  # cancelled with another seed of its claim
                    continue
                state, seed = jobs.pop(job)
                outcome = _result(job, state.claim, seed)
                if isinstance(outcome, ClaimError):
                    if isinstance(outcome.__cause__, BrokenExecutor) and state.forgives(seed, pool):
                        submit(state, range(seed, seed + 1))
                        continue
                    for other in [other for other, (owner, _) in jobs.items() if owner is state]:
                        other.cancel()
                        del jobs[other]
                    yield state, outcome
                    continue
                state.done[seed] = outcome
                progress(line_of(state.claim, seed, state.wanted, outcome))
                if len(state.done) == state.wanted:
                    following = state.more()
                    submit(state, following)
                    if not following:
                        yield state, None
    finally:
        for job in jobs:
            job.cancel()


def _result(job: Future[Timed | ClaimError], claim: Claim, seed: int) -> Timed | ClaimError:
    try:
        return job.result()
    except BrokenExecutor as error:  # the worker was killed, by the system when memory ran out for one
        return _failure(claim, seed, error)


def _attempt_by_name(module: str, name: str, budget: Budget, seed: int) -> Timed | ClaimError:
    """Runs in a worker, which finds the claim by importing its module."""
    importlib.import_module(module)
    return attempt(registered()[name], budget, seed)


def attempt(claim: Claim, budget: Budget, seed: int) -> Timed | ClaimError:
    """Failures come back as values: not every exception survives the way from a worker to its parent."""
    try:
        return _measure(claim, budget, seed)
    except Exception as error:
        return _failure(claim, seed, error)


def _measure(claim: Claim, budget: Budget, seed: int) -> Timed:
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    threads = torch.get_num_threads()
    if budget.device == "cpu":
        # The order of summation depends on the number of threads; with one, figures do not depend on the cores.
        torch.set_num_threads(1)
    started = time.process_time()
    try:
        with recording() as ledger:
            measured = claim(budget, seed)
        return Timed(measured, time.process_time() - started + ledger.saved, frozenset(ledger.built))
    finally:
        torch.set_num_threads(threads)


def _failure(claim: Claim, seed: int, error: Exception) -> ClaimError:
    place = f" on {node()}" if node() else ""
    failure = ClaimError(f"claim {claim.name!r} failed at seed {seed}{place}: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _last_cost(claim: Claim, budget: BudgetName, folder: Path | None) -> float:
    found = evidence(claim.slug, budget, part=claim.part, folder=folder)
    return 0.0 if found is None else found.seconds


def line_of(claim: Claim, seed: int, wanted: int, timed: Timed) -> str:
    values = " against ".join(f"{value:.4f}" for value in claim.values(timed.measured))
    return f"{claim.name} seed {seed} of {wanted}: {claim.metric} {values} ({timed.seconds:.1f} s)"


def silent(line: str) -> None:
    pass
