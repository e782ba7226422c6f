"""The program's first lines: signals wait before anything heavy is imported, so that none is lost."""

import gc
import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    # Until `process.py` receives them. A signal that comes before this line kills, with 128 + its number.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP})
    # What is imported stays: looking for garbage in it would be a fifth of the start, and of a restart's gap.
    gc.disable()
    from gateway_trio.cli import app  # noqa: PLC0415 - see above

    gc.enable()
    sys.exit(app())


if __name__ == "__main__":
    main()
