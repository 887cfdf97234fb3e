"""Look at what an environment will go through, before any training: `python -m envs.show SlipperyAnt-v5`."""

from envs.show.command import main

__all__ = ["main"]
