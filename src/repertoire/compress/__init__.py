"""Compressors: a trained network in fewer bytes, or with fewer operations; and tables of vectors in less memory."""

from repertoire.compress._codebook import codebook
from repertoire.compress._distil import distil
from repertoire.compress._dynamic import dynamic
from repertoire.compress._factored import (
    FactoredConv2d,
    FactoredLayer,
    FactoredLinear,
    group_lasso,
    low_rank,
    sampled_rank,
    truncate,
)
from repertoire.compress._filters import DynamicConv2d, FilterCost, filter_cost
from repertoire.compress._half import half
from repertoire.compress._int8 import int8
from repertoire.compress._lowrank import lowrank
from repertoire.compress._operations import multiplications
from repertoire.compress._prune import prune
from repertoire.compress._ternary import ternary
from repertoire.compress.embeddings._base import CompactEmbedding
from repertoire.compress.embeddings._coded import ProductCodeEmbedding, PrunedEmbedding, QuantisedEmbedding
from repertoire.compress.embeddings._embedding import EmbeddingKind, embedding
from repertoire.compress.embeddings._factored import LowRankEmbedding, MixedDimensionEmbedding, TensorTrainEmbedding
from repertoire.compress.embeddings._hashed import HashEmbedding, QuotientRemainderEmbedding

__all__ = [
    "CompactEmbedding",
    "DynamicConv2d",
    "EmbeddingKind",
    "FactoredConv2d",
    "FactoredLayer",
    "FactoredLinear",
    "FilterCost",
    "HashEmbedding",
    "LowRankEmbedding",
    "MixedDimensionEmbedding",
    "ProductCodeEmbedding",
    "PrunedEmbedding",
    "QuantisedEmbedding",
    "QuotientRemainderEmbedding",
    "TensorTrainEmbedding",
    "codebook",
    "distil",
    "dynamic",
    "embedding",
    "filter_cost",
    "group_lasso",
    "half",
    "int8",
    "low_rank",
    "lowrank",
    "multiplications",
    "prune",
    "sampled_rank",
    "ternary",
    "truncate",
]
