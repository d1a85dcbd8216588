"""`python -m repertoire.claims`: what `make evidence`, `make evidence-again` and continuous integration call."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from repertoire.claims import (
    BUDGETS,
    BudgetName,
    Claim,
    ClaimError,
    again,
    by_priority,
    entries,
    evidence,
    get,
    missing_or_stale,
    refresh,
    run_all,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs claims; the exit status is 1 if one could not be measured, or gave other figures than are stored where it is
    measured again. A claim that does not hold is no failure."""
    parser = argparse.ArgumentParser(prog="python -m repertoire.claims", description="Measure the claims of papers.")
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="which claims; all if none is named")
    parser.add_argument("--budget", choices=BUDGETS, default="small")
    parser.add_argument("--missing-or-stale", action="store_true", help="only those without up-to-date evidence")
    parser.add_argument("--refresh", action="store_true", help="measure the first seed of stale evidence again")
    parser.add_argument("--before", type=Path, help="src of a checkout before the change, which --refresh asks too")
    parser.add_argument("--again", type=int, metavar="N", help="measure N of them, drawn at random, again")
    parser.add_argument("--smoke", action="store_true", help="run every claim's smoke budget")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    parser.add_argument("--store", type=Path, help="folder of the evidence; by default your own")
    parser.add_argument("--minutes", type=float, help="begin no claim after so many minutes")
    parser.add_argument("--priority", action="store_true", help="what is missing, stale and cheap first")
    options = parser.parse_args(arguments)
    budget: BudgetName = "smoke" if options.smoke else options.budget
    chosen = [get(name) for name in options.claims] or entries()
    if options.missing_or_stale:
        wanted = {claim.name for claim in missing_or_stale(budget, folder=options.store)}
        chosen = [claim for claim in chosen if claim.name in wanted]
    if options.priority:
        chosen = by_priority(chosen, budget, folder=options.store)
    if not chosen:
        print(f"The evidence at the budget {budget!r} is up to date.")
        return 0
    started = time.perf_counter()

    def say(line: str) -> None:
        print(line, flush=True)

    if options.again is not None:
        return _again(chosen, options.again, budget, options.store, options.workers)
    if options.refresh:
        outcomes = refresh(
            chosen,
            budget,
            folder=options.store,
            workers=options.workers,
            progress=say,
            minutes=options.minutes,
            before=options.before,
        )
        found = [same for _, same in outcomes]
        print(f"{sum(found)} of {len(found)} are fresh again, after {time.perf_counter() - started:.0f} s")
        return 0
    workers = 1 if budget == "full" else options.workers
    results = run_all(chosen, budget, workers=workers, progress=say, folder=options.store, minutes=options.minutes)
    measured = failures = 0
    for outcome in results:
        if isinstance(outcome, ClaimError):
            failures += 1
            print(f"error: {outcome}", file=sys.stderr, flush=True)
            continue
        measured += 1
        if budget != "smoke":
            say(f"{outcome.name}: {outcome.sentence}")
    print(f"{measured} of {len(chosen)} claims measured in {time.perf_counter() - started:.0f} s")
    return 1 if failures else 0


def _again(chosen: Sequence[Claim], count: int, budget: BudgetName, folder: Path | None, workers: int) -> int:
    """Measures some of the claims that have evidence once more, and stores nothing."""
    known = [claim.name for claim in chosen if evidence(claim.slug, budget, part=claim.part, folder=folder)]
    drawn = random.sample(known, min(max(count, 0), len(known)))
    print(f"Drawn at random, of {len(known)} with evidence: {', '.join(drawn) or 'none'}", flush=True)
    agreeing = 0
    for name in drawn:
        try:
            found = again(name, budget, workers=workers, folder=folder)
        except ClaimError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            continue
        agreeing += found.agrees
        print(found.sentence, flush=True)
    print(f"{agreeing} of {len(drawn)} give what is stored")
    return 0 if drawn and agreeing == len(drawn) else 1


if __name__ == "__main__":
    sys.exit(main())
