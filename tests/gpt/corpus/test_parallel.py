"""Work on several processes: results in order, errors, bounded memory."""

from collections.abc import Iterator

import pytest

from gpt.corpus.parallel import SERIAL_ITEMS, ordered_map, prefetch


def square(number: int) -> int:
    return number * number


def failing(number: int) -> int:
    if number == SERIAL_ITEMS + 3:
        raise ValueError(f"number {number}")
    return number


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("count", [0, 1, SERIAL_ITEMS, SERIAL_ITEMS + 1, 100])
def test_results_come_in_the_order_of_their_items(processes: int, count: int) -> None:
    assert list(ordered_map(square, range(count), processes)) == [n * n for n in range(count)]


def test_an_error_in_another_process_is_raised_here() -> None:
    with pytest.raises(ValueError, match=f"number {SERIAL_ITEMS + 3}"):
        list(ordered_map(failing, range(10**6), 2))


def test_prefetch_yields_the_items_and_raises_their_error() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("no more")

    stream = prefetch(items())
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no more"):
        next(stream)


def test_items_are_taken_as_they_are_worked_on() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10**6):
            taken.append(number)
            yield number

    results = ordered_map(square, items(), 2)
    for _ in range(50):
        next(results)
    results.close()
    assert len(taken) <= 50 + 2 * 2 + 2
