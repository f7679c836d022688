"""What is computed when, and what is remembered: tensors and integers, never a clip."""
