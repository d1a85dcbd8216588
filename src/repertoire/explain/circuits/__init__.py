"""Circuits: the parts of a network that matter, and interpretation of black boxes."""
