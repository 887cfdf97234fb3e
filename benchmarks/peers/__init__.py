"""The peers, which do nothing but train; run by the interpreter of the benchmarks' own environment, .bench-venv."""
