"""What serves one call of `core.vsr.X`: its arguments, its plan, and the worker that runs it."""
