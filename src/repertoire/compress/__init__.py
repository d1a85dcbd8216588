"""Compressors: a trained network in fewer bytes, or with fewer operations."""

from repertoire.compress._half import half

__all__ = ["half"]
