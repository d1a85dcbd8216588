"""Explanations by example: training samples and prototypes that a decision rests on."""
