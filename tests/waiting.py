"""Waiting for what another process does."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable


def wait_for(
    condition: Callable[[], object],
    seconds: float = 120,
    running: Callable[[], bool] = lambda: True,
    told: Callable[[], str] = lambda: "",
) -> None:
    """Returns as soon as `condition` holds.

    Fails with what `told` returns after `seconds`, or at once where the process that is to bring
    the condition about is no longer `running`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        # It may have ended right after it brought the condition about.
        assert running() or condition(), told()
        assert time.monotonic() < deadline, told()
        time.sleep(0.02)


def answers(url: str) -> bool:
    """Whether a server answers there, with an error if need be."""
    try:
        urllib.request.urlopen(url, timeout=5).close()  # noqa: S310
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
