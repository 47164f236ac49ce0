"""Signals that ask a stage to stop at the next safe moment."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """A list that the first SIGTERM or SIGINT fills; a second SIGINT stops at once."""
    caught: list[str] = []

    def catch(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(f"stopped by {signal.Signals(number).name}")

    before = {s: signal.signal(s, catch) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
