"""Own GPU kernels, in place of what torch does in many launches; each beside its plain form.

A kernel is CUDA C in a file of its name, compiled by NVRTC through CuPy's RawKernel. That was
chosen over kernels of Triton compiled ahead of time:

- A filter's process must not import triton, whose LLVM ends the process beside Mesa's. Kernels
  compiled ahead of time would need no import, but one binary for each kernel, type of values, shape
  and architecture, and there would be none for an architecture that comes later. The deformable
  convolution alone took 2.5 MB for two shapes and seven architectures (Triton 3.9), and 2 to 9 s to
  compile each; for sm_75 it did not use the tensor cores.
- NVRTC needs 40 to 110 ms for a kernel of this room (13.2, sm_75 to sm_120, one core), once a
  machine: CuPy keeps the result on disk. So the package carries a few text files.
- The same lines compile as C, so the tests run the kernels on a processor, in every type of values.
  Triton's interpreter proves the program, but not what its compiler makes of it.
- Triton adds launch parameters to those of the source (two addresses in 3.9), and they differ
  between its versions.

The one kernel for which Triton is the better language is the deformable convolution: there it makes
one kernel that uses the tensor cores. Here a kernel writes what the taps read, in strips that a
cache can hold, and cuBLAS multiplies them on the tensor cores: a pass over memory more, but no
matrix product of our own to keep fast on seven architectures.

No kernel is on by default: none was measured on a GPU yet (`selection.py`).
"""
