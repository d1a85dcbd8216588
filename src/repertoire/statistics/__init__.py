"""What repeated measurements say: intervals, tests, corrections, and decisions with several looks.

Comparisons of runs and claims of papers are decided by the functions of this room. Free of torch: showing stored
evidence does not wait for it.

    >>> from repertoire.statistics import decide
    >>> decide([[0.02, 0.03, 0.025, 0.03, 0.02]]).verdict
    'holds'
"""

from repertoire.statistics._decisions import (
    KINDS,
    LOOKS,
    NOMINAL,
    VERDICTS,
    Decision,
    Kind,
    Verdict,
    contrasts,
    decide,
    smallest_effect,
)
from repertoire.statistics._intervals import (
    MOST_SEEDS,
    benjamini_hochberg,
    clustered_interval,
    holm,
    interval,
    p_value,
    seeds_needed,
)

__all__ = [
    "KINDS",
    "LOOKS",
    "MOST_SEEDS",
    "NOMINAL",
    "VERDICTS",
    "Decision",
    "Kind",
    "Verdict",
    "benjamini_hochberg",
    "clustered_interval",
    "contrasts",
    "decide",
    "holm",
    "interval",
    "p_value",
    "seeds_needed",
    "smallest_effect",
]
