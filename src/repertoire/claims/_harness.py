"""Running claims: seed by seed, on one thread each, on as many processes as there are cores."""

from __future__ import annotations

import importlib
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
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
    if workers <= 1:
        for claim in claims:
            yield claim, _in_turn(claim, budget, progress)
        return
    # spawn: a forked child of a process that has used torch's threads can hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: dict[str, dict[Future[_Timed], int]] = {}
        owner: dict[Future[_Timed], Claim] = {}
        for claim in claims:
            module = claim.function.__module__
            waiting[claim.slug] = {
                pool.submit(_measure_by_name, module, claim.slug, budget, seed): seed
                for seed in range(claim.seeds[budget.name])
            }
            owner |= dict.fromkeys(waiting[claim.slug], claim)
        done: dict[str, dict[int, _Timed]] = {claim.slug: {} for claim in claims}
        try:
            for future in as_completed(owner):
                claim = owner[future]
                if future.cancelled() or claim.slug not in done:
                    continue
                seed = waiting[claim.slug][future]
                try:
                    done[claim.slug][seed] = future.result()
                except Exception as error:
                    del done[claim.slug]
                    for other in waiting[claim.slug]:
                        other.cancel()
                    yield claim, _failure(claim, seed, error)
                    continue
                progress(_line(claim, budget, seed, *done[claim.slug][seed]))
                if len(done[claim.slug]) == len(waiting[claim.slug]):
                    yield claim, [timed for _, timed in sorted(done[claim.slug].items())]
        finally:
            pool.shutdown(cancel_futures=True)


def _in_turn(claim: Claim, budget: Budget, progress: Progress) -> list[_Timed] | ClaimError:
    results = []
    for seed in range(claim.seeds[budget.name]):
        try:
            results.append(_measure(claim, budget, seed))
        except Exception as error:
            return _failure(claim, seed, error)
        progress(_line(claim, budget, seed, *results[-1]))
    return results


def _measure_by_name(module: str, slug: str, budget: Budget, seed: int) -> _Timed:
    """Runs in a worker, which finds the claim by importing its module."""
    importlib.import_module(module)
    return _measure(registered()[slug], budget, seed)


def _measure(claim: Claim, budget: Budget, seed: int) -> _Timed:
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    threads = torch.get_num_threads()
    if budget.device == "cpu":
        # The order of summation depends on the number of threads; with one, the figures do not depend on the machine's cores.
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
