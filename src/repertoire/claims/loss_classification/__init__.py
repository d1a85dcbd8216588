"""Claims of the family loss-classification, a file each."""
