"""Checkpoints of runs: what is saved, how it is written, and how it is read back to the last bit."""
