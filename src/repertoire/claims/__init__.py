"""One runnable check per paper: does its claim hold on your machine?

A claim measures a method and its baseline on the same data and seeds; the harness decides from the paired differences.

    >>> from repertoire import claims
    >>> claims.get("supcon").baseline
    'cross-entropy'
    >>> result = claims.run("supcon", "smoke")
    >>> len(result.differences)
    1
"""

from repertoire.claims._claim import BUDGETS, Budget, BudgetName, Claim, ClaimError, Measured, claim, entries, get
from repertoire.claims._evidence import Evidence, evidence, stored
from repertoire.claims._harness import missing_or_stale, run, run_all
from repertoire.compare import Verdict, interval, verdict

__all__ = [
    "BUDGETS",
    "Budget",
    "BudgetName",
    "Claim",
    "ClaimError",
    "Evidence",
    "Measured",
    "Verdict",
    "claim",
    "entries",
    "evidence",
    "get",
    "interval",
    "missing_or_stale",
    "run",
    "run_all",
    "stored",
    "verdict",
]
