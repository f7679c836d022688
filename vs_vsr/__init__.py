"""Multi-frame video super-resolution as VapourSynth filters."""
