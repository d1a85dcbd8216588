"""What claims are measured on: scenes that several claims share, and named beds of real data."""
