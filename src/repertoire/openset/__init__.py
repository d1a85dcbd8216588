"""Things that a network has never seen: scores that say how likely a sample is of a class that it knows.

A score is fitted to samples of known classes, and never sees an unknown one: `score.fit(features, logits, labels)`,
then `score(features, logits)`, float64 `[N]`, higher for what is known. Those that need the last layer are built with
its `weight` `[K, d]` and `bias` `[K]`. `threshold` turns scores of validation samples into the line below which a
sample counts as unknown, `choose` finds a score by holding known classes out, and `detection` measures one where
unknown samples are at hand.
"""

from repertoire.openset._base import NoveltyScore
from repertoire.openset._choose import QUICK, Choice, HeldOut, build_score, choose
from repertoire.openset._costarr import COSTARR
from repertoire.openset._detection import COVERAGES, Detection, detection
from repertoire.openset._dropout import MonteCarloDropout
from repertoire.openset._hypersphere import DeepSAD, DeepSVDD
from repertoire.openset._logits import Energy, MaxLogit, MaxSoftmax
from repertoire.openset._mahalanobis import Mahalanobis
from repertoire.openset._neighbours import NearestNeighbours
from repertoire.openset._openmax import OpenMax
from repertoire.openset._threshold import false_alarm_range, threshold
from repertoire.openset._vim import VirtualLogit

__all__ = [
    "COSTARR",
    "COVERAGES",
    "QUICK",
    "Choice",
    "DeepSAD",
    "DeepSVDD",
    "Detection",
    "Energy",
    "HeldOut",
    "Mahalanobis",
    "MaxLogit",
    "MaxSoftmax",
    "MonteCarloDropout",
    "NearestNeighbours",
    "NoveltyScore",
    "OpenMax",
    "VirtualLogit",
    "build_score",
    "choose",
    "detection",
    "false_alarm_range",
    "threshold",
]
