"""Claims of the family active-learning, a file each."""
