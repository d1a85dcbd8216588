"""Claims of the family theory, a file each."""
