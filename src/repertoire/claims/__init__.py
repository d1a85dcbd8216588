"""Runnable checks of what papers assert: does it hold on your machine?

A claim measures a method and its rivals on the same data and seeds; the harness decides from the paired differences, at
looks of 5, 10 and 20 seeds.

    >>> from repertoire import claims
    >>> claims.get("supcon").baseline
    'cross-entropy'
    >>> result = claims.run("supcon", "smoke")
    >>> len(result.differences)
    1
"""

from repertoire.claims._again import Again, again, refresh
from repertoire.claims._arms import arm
from repertoire.claims._claim import BUDGETS, Budget, BudgetName, Claim, ClaimError, Measured, claim, entries, get
from repertoire.claims._evidence import freshness
from repertoire.claims._footprint import Footprint, Freshness
from repertoire.claims._harness import by_priority, missing_or_stale, run, run_all
from repertoire.claims._pilot import Pilot, pilot
from repertoire.claims._table import ALPHA, Table, TableRow, among_all, table
from repertoire.papers import Evidence, evidence
from repertoire.papers import stored_evidence as stored

__all__ = [
    "ALPHA",
    "BUDGETS",
    "Again",
    "Budget",
    "BudgetName",
    "Claim",
    "ClaimError",
    "Evidence",
    "Footprint",
    "Freshness",
    "Measured",
    "Pilot",
    "Table",
    "TableRow",
    "again",
    "among_all",
    "arm",
    "by_priority",
    "claim",
    "entries",
    "evidence",
    "freshness",
    "get",
    "missing_or_stale",
    "pilot",
    "refresh",
    "run",
    "run_all",
    "stored",
    "table",
]
