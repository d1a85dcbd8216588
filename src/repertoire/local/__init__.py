"""Local learning: training a network block by block, without an end-to-end backward pass."""

from repertoire.local._auglocal import AugLocal
from repertoire.local._auxiliary import Auxiliary, LinearReadout, LocalLoss, Site
from repertoire.local._conv import ConvReadout
from repertoire.local._dgl import DGL
from repertoire.local._exits import Exits
from repertoire.local._goodness import Goodness
from repertoire.local._infopro import InfoPro
from repertoire.local._learner import LocalLearning
from repertoire.local._man import MAN
from repertoire.local._partition import partition
from repertoire.local._patches import Patches
from repertoire.local._pipeline import Pipeline
from repertoire.local._predsim import PredSim, similarity_matching_loss
from repertoire.local._recurrent import RecurrentTargetProjection
from repertoire.local._rule import Local
from repertoire.local._target_projection import TargetProjection
from repertoire.local._tpsgd import TargetProjectionSGD
from repertoire.local._units import Chain, Unit, chain_of

__all__ = [
    "DGL",
    "MAN",
    "AugLocal",
    "Auxiliary",
    "Chain",
    "ConvReadout",
    "Exits",
    "Goodness",
    "InfoPro",
    "LinearReadout",
    "Local",
    "LocalLearning",
    "LocalLoss",
    "Patches",
    "Pipeline",
    "PredSim",
    "RecurrentTargetProjection",
    "Site",
    "TargetProjection",
    "TargetProjectionSGD",
    "Unit",
    "chain_of",
    "partition",
    "similarity_matching_loss",
]
