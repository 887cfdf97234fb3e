"""Hyper-parameter search: what is searched, and the trials of it."""
