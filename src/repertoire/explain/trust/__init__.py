"""Tests of explanations: curves, sanity checks, scores, and the judge."""
