"""Claims of the family architecture, a file each."""
