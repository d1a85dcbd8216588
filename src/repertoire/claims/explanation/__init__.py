"""Claims of the family explanation, a file each."""
