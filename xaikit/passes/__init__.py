"""One pass over images: the only place that feeds statistics."""
