"""Class activation maps: explainers that read the output of a layer."""
