"""Several processes that train one network: who holds which blocks, and what goes from one to the next."""

from repertoire.local.pipeline._pipeline import Arrival as Arrival
from repertoire.local.pipeline._pipeline import Pipeline as Pipeline
