"""What is computed when, and what is remembered. It sees tensors and integers, never a clip."""
