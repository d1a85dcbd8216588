"""`python -m repertoire.claims`: what `make evidence` and continuous integration call."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from repertoire.claims import BUDGETS, BudgetName, ClaimError, entries, get, missing_or_stale, run_all


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs claims; the exit status is 1 if one could not be measured. A claim that does not hold is no failure."""
    parser = argparse.ArgumentParser(prog="python -m repertoire.claims", description="Measure the claims of papers.")
    parser.add_argument("slugs", nargs="*", metavar="SLUG", help="which claims; all if none is named")
    parser.add_argument("--budget", choices=BUDGETS, default="small")
    parser.add_argument("--missing-or-stale", action="store_true", help="only those without up-to-date evidence")
    parser.add_argument("--smoke", action="store_true", help="run every claim's smoke budget in this process")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    options = parser.parse_args(arguments)
    budget: BudgetName = "smoke" if options.smoke else options.budget
    chosen = [get(slug) for slug in options.slugs] or entries()
    if options.missing_or_stale:
        wanted = {claim.slug for claim in missing_or_stale(budget)}
        chosen = [claim for claim in chosen if claim.slug in wanted]
    if not chosen:
        print(f"The evidence at the budget {budget!r} is up to date.")
        return 0
    workers = 1 if options.smoke or budget == "full" else options.workers
    started, failures = time.perf_counter(), 0
    for outcome in run_all(chosen, budget, workers=workers, progress=lambda line: print(line, flush=True)):
        if isinstance(outcome, ClaimError):
            failures += 1
            print(f"error: {outcome}", file=sys.stderr, flush=True)
        elif outcome.interval is not None:
            low, high = outcome.interval
            print(
                f"{outcome.slug}: {outcome.verdict} ({outcome.mean:+.4f}, 95 % interval {low:+.4f} to {high:+.4f})",
                flush=True,
            )
    print(f"{len(chosen) - failures} of {len(chosen)} claims measured in {time.perf_counter() - started:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
