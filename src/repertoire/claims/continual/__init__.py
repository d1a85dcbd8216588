"""Claims of the family continual, a file each."""
