"""How the C library gives memory back (glibc's mallopt(3), malloc_trim(3)); other C libraries need no help of ours.

Each TLS connection has a buffer of LARGE, of which little is ever touched. It is mapped, and costs only what is
touched, unless the heap has a hole that is large enough; and handshakes that come and go leave many holes. The buffers
of the next ones lie there, everything smaller extends the heap, and though nothing is lost all of it stays resident
(seen: +35 MiB with every 900 unfinished handshakes). So the holes are given back before they are filled.
"""

from __future__ import annotations

import contextlib
import ctypes

LARGE = 262_144  # octets: the buffer that each TLS connection gets, of which an idle one has touched a page
_M_MMAP_THRESHOLD = -3


def return_large_blocks() -> None:
    """Blocks from LARGE on are mapped and unmapped one by one, for good.

    By default that bound grows with the first such block that is freed. From then on argon2's 19 MiB stay in the heap
    of every thread that has hashed (seen: +39 MiB with two), and the buffers of TLS connections lie on memory that
    others have used before (seen: 46 KiB for each idle connection instead of 23).
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE)


class Holes:
    """Gives holes of the heap back to the kernel, once for every PORTION connections that want a buffer of LARGE.

    That takes 0.2 ms, and a millisecond for each 8 MiB that goes: little beside PORTION handshakes. What was touched
    since the last time is then all that such a buffer can lie on.
    """

    PORTION = 32

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)
        self._before = 0

    def will_be_filled(self) -> None:
        """One more connection."""
        self._before += 1
        if self._before >= self.PORTION:
            self._before = 0
            self._trim(0)
