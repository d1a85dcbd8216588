"""Local learning: training a network block by block, without an end-to-end backward pass."""

from repertoire.local._exits import Exits
from repertoire.local._learner import LocalLearning
from repertoire.local._partition import partition
from repertoire.local._recurrent import RecurrentTargetProjection
from repertoire.local._rule import Local
from repertoire.local._tpsgd import TargetProjectionSGD
from repertoire.local._units import Chain, Unit, chain_of
from repertoire.local.auxiliaries import (
    DGL,
    HPFF,
    MAN,
    AugLocal,
    Auxiliary,
    ConvReadout,
    Goodness,
    InfoPro,
    LinearReadout,
    LocalLoss,
    Patches,
    PredSim,
    Site,
    TargetProjection,
    similarity_matching_loss,
)
from repertoire.local.pipeline import Pipeline

__all__ = [
    "DGL",
    "HPFF",
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
