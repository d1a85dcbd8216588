"""Explainers of networks whose tokens attend to each other."""
