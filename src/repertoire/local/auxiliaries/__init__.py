"""Auxiliary networks: what trains a block that cannot see the loss of the whole network."""

from repertoire.local.auxiliaries._auglocal import AugLocal as AugLocal
from repertoire.local.auxiliaries._base import Auxiliary as Auxiliary
from repertoire.local.auxiliaries._base import LinearReadout as LinearReadout
from repertoire.local.auxiliaries._base import LocalLoss as LocalLoss
from repertoire.local.auxiliaries._base import Site as Site
from repertoire.local.auxiliaries._conv import ConvReadout as ConvReadout
from repertoire.local.auxiliaries._dgl import DGL as DGL
from repertoire.local.auxiliaries._goodness import Goodness as Goodness
from repertoire.local.auxiliaries._hpff import HPFF as HPFF
from repertoire.local.auxiliaries._infopro import InfoPro as InfoPro
from repertoire.local.auxiliaries._man import MAN as MAN
from repertoire.local.auxiliaries._patches import Patches as Patches
from repertoire.local.auxiliaries._predsim import PredSim as PredSim
from repertoire.local.auxiliaries._predsim import similarity_matching_loss as similarity_matching_loss
from repertoire.local.auxiliaries._target_projection import TargetProjection as TargetProjection
