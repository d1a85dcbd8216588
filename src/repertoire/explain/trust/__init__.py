"""How far an explanation can be trusted: curves, sanity checks, scores, and the judge."""
