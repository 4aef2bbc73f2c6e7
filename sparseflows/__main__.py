"""`python -m sparseflows`, and the console script."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    from sparseflows.cli import app
    from sparseflows.console import run_app

    sys.exit(run_app(app, "sparseflows"))


if __name__ == "__main__":
    main()
