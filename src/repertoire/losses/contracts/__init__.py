"""The contracts of losses, and what losses of one contract share."""
