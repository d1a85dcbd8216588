"""Claims of the family loss-metric, a file each."""
