"""What features look like: numbers that say how good a representation is, from features and labels alone."""

from repertoire.diagnostics._alignment import alignment
from repertoire.diagnostics._uniformity import uniformity

__all__ = ["alignment", "uniformity"]
