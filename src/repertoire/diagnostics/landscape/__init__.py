"""The loss as a function of the weights: curvature, sharpness, directions and pictures."""
