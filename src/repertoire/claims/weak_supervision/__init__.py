"""Claims of the family weak-supervision, a file each."""
