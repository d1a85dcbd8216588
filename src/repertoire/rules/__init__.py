"""Learning rules: how a batch becomes changed weights."""

from repertoire.rules._alternating import Alternating
from repertoire.rules._backprop import Backprop
from repertoire.rules._base import MakeOptimizer, Rule, called
from repertoire.rules._checkpoint import Checkpoint
from repertoire.rules._gradcache import GradCache, cached_backward
from repertoire.rules._sam import SAM
from repertoire.rules._sharded import divided, is_sharded, own_share, shard, whole, whole_around

__all__ = [
    "SAM",
    "Alternating",
    "Backprop",
    "Checkpoint",
    "GradCache",
    "MakeOptimizer",
    "Rule",
    "cached_backward",
    "called",
    "divided",
    "is_sharded",
    "own_share",
    "shard",
    "whole",
    "whole_around",
]
