"""Weights: which files exist, where they are, and what network a file holds."""
