"""Train an agent that keeps learning: `python train.py`, or `python train.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def main() -> int:
    """The exit code of the command line, after a check that our packages are the ones Python would import."""
    from experiments.startup import name_clash

    if clash := name_clash(ROOT):
        print(f"error: {clash}", file=sys.stderr)
        return 2
    from experiments.command_line import main as command_line

    return command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
