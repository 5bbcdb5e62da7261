"""Free space below data_dir, and whether it can be written at all, so that mail is refused for a while (452 4.3.1)
before the disk is full, and while it is sick, before anybody sends a message that would be in vain."""

from __future__ import annotations

import errno
import os
import tempfile

from mailserver.events import DiskLow, DiskRecovered, Emit, Problem

MARGIN = 1.1  # of the reserve must be free before mail is taken again, so that the answer does not flap
FEW_FILES = 1_024  # file numbers (inodes) left at which a file system counts as full
# More than we can write within the second until housekeeping looks again: octets beyond the reserve, and files. Who
# else writes may be faster; then the disk itself says that it is full, and that is a 452, too.
PLENTY, PLENTY_FILES = 4 << 30, 250_000
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # it was not the disk that said no


class DiskWatch:
    """Whether there is room: ``reserve`` octets, and file numbers. One statvfs(2) per check."""

    def __init__(self, path: str, reserve: int, emit: Emit) -> None:
        self.path = path
        self.reserve = reserve  # a reload may change it
        self._emit = emit
        self._ok = True
        self._plenty = False
        self._fault = ""  # what was told last
        self._sickness = ""  # what try_writing() has met

    @property
    def sick(self) -> bool:
        """Nothing could be written at the last try."""
        return bool(self._sickness)

    def try_writing(self) -> None:
        """Find out with a small file, for statvfs(2) does not know of a device that fails or a file system that has
        shut down. Blocking; from now on has_room() and check() say what was found."""
        try:
            with tempfile.TemporaryFile(dir=self.path, buffering=0) as file:
                file.write(b"\0" * 512)
                os.fsync(file.fileno())
        except PermissionError:  # a rule of this folder, no illness: what is written lies further below
            self._sickness = ""
        except OSError as error:
            if error.errno in _OURS:
                return
            self._sickness = f"cannot write below {self.path}: {error.strerror}"
            self._plenty = False
        else:
            self._sickness = ""

    def has_room(self) -> bool:
        """As ``check``, without a look where so much was free at the last one that it can wait for the next."""
        return self._plenty or self.check()

    def check(self) -> bool:
        """True while mail may be accepted. Emits DiskLow and DiskRecovered when that changes.

        A path that cannot be looked at or written, or is read-only, counts as full (and is a Problem, once, instead of
        DiskLow).
        """
        try:
            status = os.statvfs(self.path)
        except OSError as error:
            self._plenty = False
            self._unusable(f"cannot look at {self.path}: {error.strerror}")
            return False
        if status.f_flag & os.ST_RDONLY:  # as file systems become after an error
            self._plenty = False
            self._unusable(f"{self.path} is read-only")
            return False
        if self._sickness:
            self._plenty = False
            self._unusable(self._sickness)
            return False
        faulty, self._fault = bool(self._fault), ""
        room = status.f_bavail * status.f_frsize
        wanted, files = (self.reserve, FEW_FILES) if self._ok else (int(self.reserve * MARGIN), 2 * FEW_FILES)
        ok = room >= wanted and (
            status.f_files == 0 or status.f_favail >= files
        )  # btrfs counts no file numbers
        many = status.f_files == 0 or status.f_favail >= PLENTY_FILES
        self._plenty = ok and many and room >= self.reserve + PLENTY
        if ok != self._ok or (ok and faulty):
            self._ok = ok
            self._emit(DiskRecovered(self.path, room) if ok else DiskLow(self.path, room, self.reserve))
        return ok

    def _unusable(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            self._emit(Problem("disk", fault))
