"""Claims of the family diagnostics, a file each."""
