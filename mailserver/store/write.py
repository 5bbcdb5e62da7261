"""Putting content into an open file: parts in memory and slices of files. Short writes are continued."""

from __future__ import annotations

import errno
import os

from mailserver.store.job import FileSlice

_IOV_MAX = 1024  # limits.h


def fill(fd: int, parts: tuple[bytes | FileSlice, ...]) -> None:
    """Write all of ``parts`` at the descriptor's position."""
    plain = [part for part in parts if type(part) is bytes]
    if len(plain) == len(parts) <= _IOV_MAX:
        size = sum(map(len, plain))
        written = os.writev(fd, plain)
        if written < size:  # a disk filling up takes what it can and says why at the next call
            _write(fd, b"".join(plain)[written:])
        return
    for part in parts:
        if isinstance(part, FileSlice):
            source = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                copy(fd, source, part.offset, part.length)
            finally:
                os.close(source)
        else:
            _write(fd, part)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def copy(target: int, source: int, offset: int, length: int) -> None:
    while length:
        copied = os.sendfile(target, source, offset, length)
        if not copied:
            raise OSError(errno.EIO, "file to copy from is shorter than it should be")
        offset += copied
        length -= copied
