"""Claims of the family long-tail, a file each."""
