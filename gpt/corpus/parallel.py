"""Work on all cores, its results in the order of its items, at a bounded memory."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# A process costs about half a second to start: so many items are worked on without any.
ALONE = 8
# Each takes some 60 MB, and one process has to feed them.
MOST = 8


def cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Iterator[Result]:
    """function(item) for each item, in order, whatever the number of processes.

    `function` and what it takes and gives must be picklable. At most two items wait for each
    process, so memory does not grow with their number.
    """
    stream = iter(items)
    processes = min(processes, MOST)
    yield from map(function, islice(stream, ALONE) if processes > 1 else stream)
    first = next(stream, None)
    if first is None:
        return
    # spawn: a fork of a process that has threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting: deque[Future[Result]] = deque([pool.submit(function, first)])
        try:
            for item in stream:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items; the next one is made in a thread while the caller is busy with this one."""
    stream = iter(items)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, stream, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, stream, None)
            yield item
