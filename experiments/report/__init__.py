"""A page that says what some runs found: `python -m experiments.report RUNS -o report.html`."""
