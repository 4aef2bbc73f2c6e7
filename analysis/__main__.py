"""`python -m analysis`, the same as the console script `sparseflows-analysis`."""

import sys

from analysis.cli.app import app
from sparseflows.cli.console import run_app


def main() -> None:
    """Run the command line and leave with its exit status."""
    sys.exit(run_app(app, "analysis"))


if __name__ == "__main__":
    main()
