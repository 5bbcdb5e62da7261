"""One server per data directory: an exclusive flock(2), given back by the kernel however the process ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress


class DirectoryInUseError(Exception):
    """Another process works in this data directory; ``pid`` is its number, 0 when it could not be read."""

    def __init__(self, data_dir: str, pid: int) -> None:
        who = f"pid {pid}" if pid else "another process"
        super().__init__(
            f"{data_dir} is in use by a running server ({who}): "
            "`mailserver stop` ends it, or choose another data_dir"
        )
        self.pid = pid


class DataDirLock:
    """``data_dir/lock``; its content is the holder's process id, for people: a disk that is full, or read-only by now,
    has no room for it, and prevents neither start nor end.

    The file is never removed: a name that comes and goes could be locked by two.
    """

    def __init__(self, data_dir: str) -> None:
        self._data_dir = data_dir
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises DirectoryInUseError, or OSError when the file cannot be made."""
        os.makedirs(self._data_dir, mode=0o750, exist_ok=True)
        fd = os.open(os.path.join(self._data_dir, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).strip()
            os.close(fd)
            raise DirectoryInUseError(self._data_dir, int(holder) if holder.isdigit() else 0) from None
        self._fd = fd
        with suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self._fd is not None:
            with suppress(OSError):
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> DataDirLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
