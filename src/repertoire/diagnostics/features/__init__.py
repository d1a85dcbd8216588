"""Numbers of features: geometry, dimension, collapse, and comparison."""
