"""Frames to tensors and back: one module for each kind of device.

Who owns what: the frame server owns the memory of its frames. It lends input frames for one call.
`HostTransfer` has read their planes when the call returns; what it gives for pictures is the output
frames' own memory. `StagedTransfer` has copied input frames to pinned memory when the call returns.
Pictures are late, on a CPU those after the first: the output frames are lent until all of them are
delivered, or dropped. `ResidentTransfer` has work enqueued that reads or writes frames on the
GPU when the call returns; the core takes them back after it.

What is copied: on a CPU a frame once on its way in, clamped to float32, and nothing on its way out.
On any other device once to pinned memory and once from there to the device, and the same on the way
back: pinned memory is what a device reads and writes beside the program, and a frame server cannot
make frames in it. Of a clip that is on the GPU nothing is copied.
"""
