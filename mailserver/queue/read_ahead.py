"""Many small files read before their turn: compiled code reads in other threads, while the caller works on what came
before. From a cold disk the device gets several reads at once instead of one after the other."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, repeat

from mailserver.store.steps import STEPS, Steps

PORTION = 512  # files
AHEAD = 4  # portions at most: so many files are held, and read at the same time
ROOM = 1 << 20  # octets read by one call


def read_ahead(paths: Sequence[str], most: int, steps: Steps | None = STEPS) -> Iterator[bytes | None]:
    """For each of ``paths`` its content, None where it has more than ``most`` octets (fewer than ROOM), where it is
    empty or cannot be read, and everywhere when there is no compiled code: then the caller looks for himself, and sees
    why. Blocking."""
    if steps is None:
        yield from repeat(None, len(paths))
        return
    left = iter(range(0, len(paths), PORTION))
    ahead = 1
    pool = ThreadPoolExecutor(AHEAD, "read-ahead")
    try:
        coming = deque(_begun(pool, steps, paths, most, islice(left, ahead)))
        while coming:
            if not coming[0].done():  # what is in memory is read sooner than the caller is ready for it
                ahead = min(ahead + 1, AHEAD)
            found = coming.popleft().result()
            coming += _begun(pool, steps, paths, most, islice(left, ahead - len(coming)))
            yield from found
    finally:  # whoever wants no more, at a stop, does not wait for what is being read
        pool.shutdown(wait=False, cancel_futures=True)


def _begun(
    pool: ThreadPoolExecutor, steps: Steps, paths: Sequence[str], most: int, starts: Iterable[int]
) -> list[Future[list[bytes | None]]]:
    return [pool.submit(_read, steps, paths[start : start + PORTION], most) for start in starts]


def _read(steps: Steps, paths: Sequence[str], most: int) -> list[bytes | None]:
    room, found = ctypes.create_string_buffer(ROOM), list[bytes | None]()
    while len(found) < len(paths):
        found += steps.read_files(paths[len(found) :], room, most)
    return found
