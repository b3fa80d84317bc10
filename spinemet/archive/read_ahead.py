"""Reads that overlap: several at a time, few of their results waiting in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")

READ_AHEAD = 32


def in_order(
    pool: ThreadPoolExecutor, read: Callable[[K], T], names: Iterable[K], ahead: int = READ_AHEAD
) -> Iterator[tuple[K, T]]:
    """(name, read(name)) in the order of `names`, with up to `ahead` reads running or waiting to be taken."""
    rest = iter(names)
    waiting: deque[tuple[K, Future[T]]] = deque((name, pool.submit(read, name)) for name in islice(rest, ahead))
    while waiting:
        name, future = waiting.popleft()
        yield name, future.result()
        for name in islice(rest, 1):
            waiting.append((name, pool.submit(read, name)))


def as_they_come(pool: ThreadPoolExecutor, read: Callable[[str], T], names: Iterable[str]) -> Iterator[tuple[str, T]]:
    """(name, read(name)) like `in_order`, but in the order in which the reads end."""

    def named(name: str) -> tuple[str, T]:
        return name, read(name)

    rest, done, left = iter(names), SimpleQueue[Future[tuple[str, T]]](), 0
    while True:
        for name in islice(rest, READ_AHEAD - left):
            pool.submit(named, name).add_done_callback(done.put)
            left += 1
        if not left:
            return
        left -= 1
        yield done.get().result()
