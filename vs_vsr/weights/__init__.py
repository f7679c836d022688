"""Weights: which files exist, where they are, and which network a file holds."""
