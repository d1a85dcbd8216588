"""Claims of the family compression, a file each."""
