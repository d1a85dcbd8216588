"""A claim's bed on seeds that no evidence has: how far they spread, and how many it would take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from repertoire.claims._claim import PILOT, Budget, BudgetName, Claim, ClaimError, get
from repertoire.claims._harness import Progress, attempt, line_of, silent
from repertoire.errors import ConfigError
from repertoire.statistics import LOOKS, NOMINAL, contrasts, seeds_needed, smallest_effect

__all__ = ["Pilot", "pilot"]


@dataclass(frozen=True)
class Pilot:
    """Findings of pilot seeds about a claim's bed.

    Attributes:
        claim: it.
        seeds: from 1000 on.
        differences: of the contrast that decides, `[n]`.
        spread: their standard deviation.
        needed: seeds that would tell the difference from the threshold, were it what it seems; None where too many.
        smallest: the smallest effect that 20 seeds would find in 80 % of cases.
        failed: why the bed fails; "" where it does not.
        seconds: CPU time of a seed.
    """

    claim: Claim
    seeds: list[int]
    differences: list[float]
    spread: float
    needed: int | None
    smallest: float
    failed: str
    seconds: float


def pilot(name: str, budget: BudgetName = "small", *, seeds: int = 5, progress: Progress | None = None) -> Pilot:
    """Tries a claim's bed on seeds that no evidence has, before its threshold is written down.

    Args:
        name: of the claim.
        budget: to try it at.
        seeds: how many, from 1000 on; 2 or more.
        progress: called with a line of text after every seed.

    Raises:
        ConfigError: fewer than two seeds.
        ClaimError: a seed failed.
    """
    if seeds < 2:
        raise ConfigError(f"a pilot needs 2 seeds or more to see their spread, found {seeds}")
    claim, chosen, say = get(name), Budget.named(budget), progress or silent
    found = []
    for seed in range(PILOT, PILOT + seeds):
        outcome = attempt(claim, chosen, seed)
        if isinstance(outcome, ClaimError):
            raise outcome
        say(line_of(claim, seed, seed - PILOT + 1, outcome))
        found.append(outcome)
    measured = [timed.measured for timed in found]
    sign = 1.0 if claim.higher_is_better or claim.kind == "identity" else -1.0
    rows = contrasts(claim.kind, [[sign * v for v in claim.values(m)] for m in measured], claim.points)
    values = min(rows, key=lambda row: math.fsum(row))
    beyond = [value - claim.threshold for value in values]
    mean = math.fsum(values) / seeds
    return Pilot(
        claim=claim,
        seeds=list(range(PILOT, PILOT + seeds)),
        differences=values,
        spread=math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (seeds - 1)),
        needed=seeds_needed(beyond, alpha=NOMINAL),
        smallest=smallest_effect(values, LOOKS[-1], overlap=claim.overlap),
        failed=claim.failed_bed(measured),
        seconds=math.fsum(timed.seconds for timed in found) / seeds,
    )
