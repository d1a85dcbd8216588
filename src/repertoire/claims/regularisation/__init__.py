"""Claims of the family regularisation, a file each."""
