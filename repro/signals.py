"""Signals that ask a stage to stop at the next safe moment."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """A list that the first SIGTERM or SIGINT fills; a second SIGINT stops at once.

    Windows delivers no SIGTERM: there Ctrl+Break (SIGBREAK) asks too.
    """
    caught: list[str] = []

    def catch(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(f"stopped by {signal.Signals(number).name}")

    signals = [signal.SIGTERM, signal.SIGINT]
    if sys.platform == "win32":
        signals.append(signal.SIGBREAK)
    before = {number: signal.signal(number, catch) for number in signals}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
