"""Losses on predictions of samples that have no targets."""
