"""Claims of the family merging, a file each."""
