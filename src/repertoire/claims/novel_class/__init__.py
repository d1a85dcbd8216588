"""Claims of the family novel-class, a file each."""
