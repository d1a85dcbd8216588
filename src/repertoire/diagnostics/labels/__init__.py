"""Data and its labels: wrong labels, overlapping classes, weak subgroups, duplicates."""
