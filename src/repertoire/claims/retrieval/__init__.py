"""Claims of the family retrieval, a file each."""
