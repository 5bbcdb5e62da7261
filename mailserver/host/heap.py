"""How the C library gives memory back (glibc's mallopt(3)); other C libraries have no mallopt and need none."""

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
