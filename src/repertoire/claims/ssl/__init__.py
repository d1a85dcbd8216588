"""Claims of the family ssl, a file each."""
