"""Ordering and reuse: which stages run, on what, and which results are kept."""
