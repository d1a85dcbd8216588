"""Claims of the family semi-supervised, a file each."""
