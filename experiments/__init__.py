"""The life of a run: from a command line to validated settings, a trained agent and a folder that explains it."""
