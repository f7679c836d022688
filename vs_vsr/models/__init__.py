"""The networks: pure torch, state goes in and comes out, no files and no VapourSynth here."""
