"""Laws of scale: how error falls with data, width and batch."""
