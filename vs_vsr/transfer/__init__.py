"""Frames to tensors and back."""
