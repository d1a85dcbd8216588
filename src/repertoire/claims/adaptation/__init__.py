"""Claims of the family adaptation, a file each."""
