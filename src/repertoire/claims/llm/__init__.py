"""Claims of the family llm, a file each."""
