"""Claims of the family tabular-ts, a file each."""
