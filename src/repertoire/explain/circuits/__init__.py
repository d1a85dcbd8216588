"""What the parts of a network, or a black box as a whole, compute."""
