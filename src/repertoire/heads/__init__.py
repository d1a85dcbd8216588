"""Heads: what turns features into class scores."""

from repertoire.heads._base import Head
from repertoire.heads._cosine import Cosine
from repertoire.heads._digit_decoder import DigitDecoder
from repertoire.heads._harmonic import Harmonic
from repertoire.heads._linear import Linear
from repertoire.heads._matryoshka import Matryoshka, nested_sizes

__all__ = [
    "Cosine",
    "DigitDecoder",
    "Harmonic",
    "Head",
    "Linear",
    "Matryoshka",
    "nested_sizes",
]
