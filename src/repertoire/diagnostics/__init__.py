"""What features look like: numbers that say how good a representation is, from features and labels alone."""

from repertoire.diagnostics._alignment import alignment
from repertoire.diagnostics._effective_rank import effective_rank
from repertoire.diagnostics._uniformity import uniformity
from repertoire.diagnostics._wasserstein import wasserstein_uniformity

__all__ = [
    "alignment",
    "effective_rank",
    "uniformity",
    "wasserstein_uniformity",
]
