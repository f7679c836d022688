"""Benchmarks: speed end to end (`python -m vs_vsr.bench`) and by network, chunk borders, cuts."""
