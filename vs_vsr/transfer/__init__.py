"""Frames to tensors and back: one module for each kind of device.

Who owns what: the frame server owns the memory of its frames, and lends it for one step. `upload`
has read its planes when it returns; the tensor that it gives is the caller's. The tensors that
`writing` gives are for its `with` block only: on a CPU they are the frames' own memory. When the
block ends the frames hold the pictures, and nothing here uses either any longer.

What is copied: on its way in, a frame once, clamped to float32, and once more to a device that is
not the CPU. On its way out nothing on a CPU, where pictures are written into the output frame; each
picture once from any other device.
"""
