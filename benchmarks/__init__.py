"""How fast Pliant is beside its peers: `python -m benchmarks`; the other scripts here run by themselves."""
