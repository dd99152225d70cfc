"""Signals that interrupt training, noted for a moment at which a checkpoint can be saved."""

import signal
import threading
from typing import Any


class Interrupts:
    """While entered, a first SIGINT or SIGTERM is noted for the next check, and a second one interrupts at once."""

    def __init__(self) -> None:
        self.noted = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        # Only the main thread receives signals.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, problem: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self.noted and problem is None:  # since the last check
            raise KeyboardInterrupt

    def _note(self, *_: object) -> None:
        if self.noted:
            raise KeyboardInterrupt
        self.noted = True
