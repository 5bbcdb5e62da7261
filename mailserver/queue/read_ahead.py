"""Many small files from a cold disk: the device gets hundreds of reads at once instead of one after the other."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

THREADS = 4
PORTION = 250  # files
AHEAD = 8  # portions
WAITING = 5e-5  # seconds of waiting for each file: more, and the files are not in memory
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _waited() -> float:
    return time.perf_counter() - time.thread_time()


def read_ahead(paths: Sequence[str], length: int, *, waited: Callable[[], float] = _waited) -> Iterator[str]:
    """``paths`` as they are. If whoever reads the first PORTION has to wait for them, the first ``length`` octets of
    the others are brought into memory before their turn; if not, as after a restart, threads would only cost.

    ``waited``: seconds this thread has not been running, of any origin. Blocking.
    """
    portions = [paths[i : i + PORTION] for i in range(0, len(paths), PORTION)]
    if not portions:
        return
    before = waited()
    yield from portions.pop(0)
    if waited() - before < WAITING * PORTION:
        for portion in portions:
            yield from portion
        return
    with ThreadPoolExecutor(THREADS, "read-ahead") as pool:
        coming: deque[Future[None]] = deque()
        for number, portion in enumerate(portions):
            while len(coming) < AHEAD and number + len(coming) < len(portions):
                coming.append(pool.submit(_fetch, portions[number + len(coming)], length))
            coming.popleft().result()
            yield from portion


def _fetch(paths: Sequence[str], length: int) -> None:
    for path in paths:
        with suppress(OSError):  # whoever reads it will say so
            fd = os.open(path, _FLAGS)
            try:
                os.posix_fadvise(fd, 0, length, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(fd)
