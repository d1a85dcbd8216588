"""Compressors: a trained network in fewer bytes, or with fewer operations; and tables of vectors in less memory."""

from repertoire.compress._half import half
from repertoire.compress.embeddings._base import CompactEmbedding
from repertoire.compress.embeddings._coded import ProductCodeEmbedding, PrunedEmbedding, QuantisedEmbedding
from repertoire.compress.embeddings._embedding import embedding
from repertoire.compress.embeddings._factored import LowRankEmbedding, MixedDimensionEmbedding, TensorTrainEmbedding
from repertoire.compress.embeddings._hashed import HashEmbedding, QuotientRemainderEmbedding

__all__ = [
    "CompactEmbedding",
    "HashEmbedding",
    "LowRankEmbedding",
    "MixedDimensionEmbedding",
    "ProductCodeEmbedding",
    "PrunedEmbedding",
    "QuantisedEmbedding",
    "QuotientRemainderEmbedding",
    "TensorTrainEmbedding",
    "embedding",
    "half",
]
