"""What the documentation build adds to the pages that people wrote: formulas, paper pages, tables, figures and the feed."""
