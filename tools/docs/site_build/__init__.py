"""What the documentation build adds to pages that people wrote: formulas, paper pages, tables, figures, the feed."""
