"""The networks: pure torch. State goes in and comes out; no files and no VapourSynth here.

They are for inference: no gradients, no export. Pictures come out unclamped.
"""
