"""The life of a run: from a command line to validated settings, a trained agent and a folder that explains it."""

import os

# Before torch loads OpenMP: its threads would look for more work for milliseconds after each use, and take cores from
# those that step simulations or work out gradients.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
