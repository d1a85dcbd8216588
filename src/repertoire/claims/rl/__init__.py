"""Claims of the family rl, a file each."""
