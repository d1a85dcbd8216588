"""Running claims: seed by seed, on one thread each, on as many processes as there are cores."""

from __future__ import annotations

import importlib
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from pathlib import Path

from repertoire.claims._claim import Budget, BudgetName, Claim, ClaimError, Measured, entries, get, registered
from repertoire.claims._evidence import Evidence, evidence, summarise

__all__ = ["Progress", "missing_or_stale", "run", "run_all"]

Progress = Callable[[str], None]
_Timed = tuple[Measured, float]


def run(
    slug: str,
    budget: BudgetName = "small",
    *,
    store: bool = True,
    workers: int = 1,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Evidence:
    """Measures the claim of a paper and decides whether it holds.

    Args:
        slug: of the paper's card.
        budget: "smoke", "small" or "full".
        store: keep the evidence. That of the smoke budget, which decides nothing, is never kept.
        workers: processes; 1 measures in this one. The figures do not depend on it.
        progress: called with a line of text after every seed.
        folder: where to store; by default where `evidence` looks for it.

    Raises:
        UnknownName: no such claim or budget.
        ConfigError: the budget needs a GPU, and there is none.
        ClaimError: a seed failed; nothing was stored.
    """
    (outcome,) = run_all([get(slug)], budget, store=store, workers=workers, progress=progress, folder=folder)
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
) -> Iterator[Evidence | ClaimError]:
    """Measures several claims, and yields each one's evidence, or the reason why it has none, as it is known.

    All seeds of all claims are shared out among the workers. The arguments are those of `run`.
    """
    chosen = Budget.named(budget)
    for claim, outcome in _outcomes(claims, chosen, workers, progress or _silent):
        if isinstance(outcome, ClaimError):
            yield outcome
            continue
        result = summarise(claim, chosen, [m for m, _ in outcome], sum(seconds for _, seconds in outcome))
        if store and chosen.name != "smoke":
            result.write(folder)
        yield result


def missing_or_stale(budget: BudgetName = "small", *, folder: Path | None = None) -> list[Claim]:
    """The claims without evidence at this budget, or whose evidence was measured by another program."""
    wanted = []
    for claim in entries():
        found = evidence(claim.slug, budget, folder=folder)
        if found is None or found.is_stale(claim):
            wanted.append(claim)
    return wanted


def _outcomes(
    claims: Sequence[Claim], budget: Budget, workers: int, progress: Progress
) -> Iterator[tuple[Claim, list[_Timed] | ClaimError]]:
    if workers > 1:
        yield from _shared_out(claims, budget, workers, progress)
        return
    for claim in claims:
        yield claim, _in_turn(claim, budget, progress)


def _in_turn(claim: Claim, budget: Budget, progress: Progress) -> list[_Timed] | ClaimError:
    results = []
    for seed in range(claim.seeds[budget.name]):
        outcome = _attempt(claim, budget, seed)
        if isinstance(outcome, ClaimError):
            return outcome
        progress(_line(claim, budget, seed, *outcome))
        results.append(outcome)
    return results


def _shared_out(
    claims: Sequence[Claim], budget: Budget, workers: int, progress: Progress
) -> Iterator[tuple[Claim, list[_Timed] | ClaimError]]:
    # spawn: a forked child of a process that has used torch's threads can hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = {
            pool.submit(_attempt_by_name, claim.function.__module__, claim.slug, budget, seed): (claim, seed)
            for claim in claims
            for seed in range(claim.seeds[budget.name])
        }
        done: dict[str, dict[int, _Timed]] = {claim.slug: {} for claim in claims}
        try:
            for job in as_completed(jobs):
                claim, seed = jobs[job]
                if claim.slug not in done:  # another seed of it has failed
                    continue
                outcome = _result(job, claim, seed)
                if isinstance(outcome, ClaimError):
                    del done[claim.slug]
                    for other, (owner, _) in jobs.items():
                        if owner is claim:
                            other.cancel()
                    yield claim, outcome
                    continue
                progress(_line(claim, budget, seed, *outcome))
                done[claim.slug][seed] = outcome
                if len(done[claim.slug]) == claim.seeds[budget.name]:
                    yield claim, [timed for _, timed in sorted(done[claim.slug].items())]
        finally:
            pool.shutdown(cancel_futures=True)


def _result(job: Future[_Timed | ClaimError], claim: Claim, seed: int) -> _Timed | ClaimError:
    try:
        return job.result()
    except BrokenExecutor as error:  # the worker was killed, by the system when memory ran out for one
        return _failure(claim, seed, error)


def _attempt_by_name(module: str, slug: str, budget: Budget, seed: int) -> _Timed | ClaimError:
    """Runs in a worker, which finds the claim by importing its module."""
    importlib.import_module(module)
    return _attempt(registered()[slug], budget, seed)


def _attempt(claim: Claim, budget: Budget, seed: int) -> _Timed | ClaimError:
    """Failures come back as values: not every exception survives the way from a worker to its parent."""
    try:
        return _measure(claim, budget, seed)
    except Exception as error:
        return _failure(claim, seed, error)


def _measure(claim: Claim, budget: Budget, seed: int) -> _Timed:
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    threads = torch.get_num_threads()
    if budget.device == "cpu":
        # The order of summation depends on the number of threads; with one, figures do not depend on the cores.
        torch.set_num_threads(1)
    started = time.perf_counter()
    try:
        return claim(budget, seed), time.perf_counter() - started
    finally:
        torch.set_num_threads(threads)


def _failure(claim: Claim, seed: int, error: Exception) -> ClaimError:
    failure = ClaimError(f"claim {claim.slug!r} failed at seed {seed}: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _line(claim: Claim, budget: Budget, seed: int, measured: Measured, seconds: float) -> str:
    return (
        f"{claim.slug} seed {seed + 1}/{claim.seeds[budget.name]}: {claim.metric} {measured.method:.4f} "
        f"against {measured.baseline:.4f} ({seconds:.1f} s)"
    )


def _silent(line: str) -> None:
    pass
