"""`fa-jax`, and `python -m fa_jax`: the command line as a process of its own."""

import atexit
import contextlib
import gc
import os
import sys


def run() -> None:
    """Runs `fa-jax` with the arguments of this process, and ends the process with its exit code."""
    codes: list[int] = []
    # Processes that it starts import nothing from the working folder, which may come from anyone.
    os.environ["PYTHONSAFEPATH"] = "1"
    # Imports and tracing make many objects that stay: Python's own thresholds look through them for a tenth of a start.
    gc.set_threshold(50_000, 20, 50)
    # The first that is registered is the last that is called: all others have cleaned up by then.
    atexit.register(_end, codes)
    from fa_jax.cli import results
    from fa_jax.cli.main import main

    results.allow_ahead()
    codes.append(main())
    sys.exit(codes[0])


def _end(codes: list[int]) -> None:
    """Ends the process at once, if `main` has returned its exit code: Python takes JAX apart for most of a second."""
    if codes:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    run()
