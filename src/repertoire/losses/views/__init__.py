"""Losses on views of the same samples."""
