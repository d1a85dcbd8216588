"""Claims of the family dense, a file each."""
