"""Claims of the family few-shot, a file each."""
