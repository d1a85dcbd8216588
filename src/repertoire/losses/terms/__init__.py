"""Terms that methods add to their losses."""
