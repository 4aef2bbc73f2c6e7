"""`python -m sparseflows`, and the console script."""

import signal
import sys


def main() -> None:
    """Run the command line and exit with its status."""
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    try:
        from sparseflows.cli.app import app
        from sparseflows.cli.console import run_app
    except KeyboardInterrupt:  # before there is anyone else to say it
        print("sparseflows: interrupted", file=sys.stderr)
        sys.exit(130)
    status = run_app(app, "sparseflows")
    for number in (signal.SIGINT, signal.SIGTERM):  # all is said: one while Python ends needs no traceback
        signal.signal(number, signal.SIG_DFL)
    sys.exit(status)


def _as_ctrl_c(number: int, frame: object) -> None:
    """A job scheduler's way to end a process: it ends as by Ctrl-C, and says how to go on."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
