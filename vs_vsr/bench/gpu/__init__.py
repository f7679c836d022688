"""A visit to a machine with an NVIDIA GPU: `python -m vs_vsr.bench.gpu` measures it all."""
