"""Prints a line if an operation takes long."""

import contextlib
import threading
from collections.abc import Iterator

from rich.console import Console

from fa_jax.user.text import say

PATIENCE = 2.0
"""Seconds after which it is said what is being done."""


@contextlib.contextmanager
def announced(text: str, console: Console | None = None) -> Iterator[None]:
    """While entered for longer than `PATIENCE`, prints one line.

    Args:
      text: what is being done, such as `compiling`.
      console: to print on; None: stdout.
    """
    timer = threading.Timer(PATIENCE, lambda: say(console or Console(), text))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
