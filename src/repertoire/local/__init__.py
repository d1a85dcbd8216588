"""Local learning: training a network block by block, without an end-to-end backward pass."""

from repertoire.local._auglocal import AugLocal
from repertoire.local._auxiliary import Auxiliary, LinearReadout, LocalLoss, Site
from repertoire.local._conv import ConvReadout
from repertoire.local._exits import Exits
from repertoire.local._learner import LocalLearning
from repertoire.local._partition import partition
from repertoire.local._rule import Local
from repertoire.local._units import Chain, Unit, chain_of

__all__ = [
    "AugLocal",
    "Auxiliary",
    "Chain",
    "ConvReadout",
    "Exits",
    "LinearReadout",
    "Local",
    "LocalLearning",
    "LocalLoss",
    "Site",
    "Unit",
    "chain_of",
    "partition",
]
