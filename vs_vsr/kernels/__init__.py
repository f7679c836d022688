"""Own GPU kernels for what torch does in many small ones. Each has a plain form beside it."""
