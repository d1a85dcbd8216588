"""Attributions: how much each pixel, patch or column adds to a score."""
