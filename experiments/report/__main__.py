"""`python -m experiments.report`."""

from __future__ import annotations

import sys

from experiments.report.command import main

if __name__ == "__main__":
    sys.exit(main())
