"""Claims of the family other, a file each."""
