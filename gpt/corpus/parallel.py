"""Work on several cores, with results in the order of their items and bounded memory."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

SERIAL_ITEMS = 8  # done in this process: starting another takes about half a second
MAX_PROCESSES = 8  # each takes some 60 MB, and one process has to feed them


def cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Iterator[Result]:
    """Yields function(item) for each item, in order, for any number of processes.

    `function`, the items and the results must be picklable. At most two items wait per process, so
    memory does not grow with their number.
    """
    stream = iter(items)
    processes = min(processes, MAX_PROCESSES)
    yield from map(function, islice(stream, SERIAL_ITEMS) if processes > 1 else stream)
    first = next(stream, None)
    if first is None:
        return
    # spawn: a fork of a process that has threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures: deque[Future[Result]] = deque([pool.submit(function, first)])
        try:
            for item in stream:
                futures.append(pool.submit(function, item))
                if len(futures) > 2 * processes:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def prefetch(items: Iterable[Item]) -> Iterator[Item]:
    """Yields the items; a thread makes the next one while the caller is busy with this one."""
    stream = iter(items)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, stream, None)
        while (item := future.result()) is not None:
            future = pool.submit(next, stream, None)
            yield item
