"""Claims of the family local-learning, a file each."""
