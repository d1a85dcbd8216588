"""Things that a network has never seen: scores that say how likely a sample is of a class that it knows.

A score is fitted to samples of known classes, and never sees an unknown one: `score.fit(features, logits, labels)`,
then `score(features, logits)`, float64 `[N]`, higher for what is known. Those that need the last layer are built with
its `weight` `[K, d]` and `bias` `[K]`.
"""

from repertoire.openset._base import NoveltyScore
from repertoire.openset._logits import Energy, MaxLogit, MaxSoftmax

__all__ = ["Energy", "MaxLogit", "MaxSoftmax", "NoveltyScore"]
