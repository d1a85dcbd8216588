"""Losses on embeddings and labels."""
