"""What `python -m experiments.play` is made of: a run's agent, episodes in frozen regimes, a film of them."""
