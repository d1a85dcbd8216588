"""Heads: what turns features into class scores."""

from typing import Any

from repertoire._aliases import missing_attribute
from repertoire.heads._arcface import ArcFace
from repertoire.heads._base import Head
from repertoire.heads._batch_attention import BatchAttention
from repertoire.heads._cosface import CosFace
from repertoire.heads._cosine import Cosine
from repertoire.heads._dense import Dense
from repertoire.heads._digit_decoder import DigitDecoder
from repertoire.heads._experts import Experts
from repertoire.heads._harmonic import Harmonic
from repertoire.heads._key_value import KeyValueBottleneck
from repertoire.heads._keyed_mask import KeyedMask
from repertoire.heads._legendre import ConvexGradient, Legendre
from repertoire.heads._linear import Linear
from repertoire.heads._madacos import MadaCos
from repertoire.heads._margin import MarginHead
from repertoire.heads._matryoshka import Matryoshka, nested_sizes
from repertoire.heads._nearest_mean import NearestMean
from repertoire.heads._normalised import NormalizedSoftmax
from repertoire.heads._simplex import Simplex, simplex_vectors
from repertoire.heads._support_trivial import PrototypeSet, SupportTrivial

__all__ = [
    "ArcFace",
    "BatchAttention",
    "ConvexGradient",
    "CosFace",
    "Cosine",
    "Dense",
    "DigitDecoder",
    "Experts",
    "Harmonic",
    "Head",
    "KeyValueBottleneck",
    "KeyedMask",
    "Legendre",
    "Linear",
    "MadaCos",
    "MarginHead",
    "Matryoshka",
    "NearestMean",
    "NormalizedSoftmax",
    "PrototypeSet",
    "Simplex",
    "SupportTrivial",
    "nested_sizes",
    "simplex_vectors",
]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)
