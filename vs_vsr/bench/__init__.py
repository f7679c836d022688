"""Benchmarks: speed end to end (`python -m vs_vsr.bench`), and what chunk borders cost."""
