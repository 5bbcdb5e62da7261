"""A disk that remembers every write and every flush of its cache, in order: what a power cut could leave.

Run as root: ``recording_disk.py FOLDER SIZE LOG``. FOLDER becomes a FUSE file system with two files: ``disk``
(SIZE octets, for a loop device) and ``said`` (what is written to it stands in the log among the disk's
writes). LOG gets one record for each, see ``records``. Ends when FOLDER is unmounted. The protocol is
<linux/fuse.h>, as little of it as a loop device needs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

WRITE, FLUSH, SAID = 1, 2, 3
_RECORD = struct.Struct("<BQI")
_IN, _OUT = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
_LOOKUP, _FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE, _STATFS = 1, 2, 3, 4, 14, 15, 16, 17
_RELEASE, _FSYNC, _FLUSH, _INIT, _INTERRUPT, _DESTROY, _BATCH_FORGET = 18, 20, 25, 26, 36, 38, 42
_BIG_WRITES, _MAX_PAGES, _DIRECT_IO = 1 << 5, 1 << 22, 1
_MAX_WRITE = 1 << 20
_ROOT, _DISK, _SAID = 1, 2, 3


class Record(NamedTuple):
    """``kind`` WRITE (``data`` at ``offset``), FLUSH, or SAID (``data``)."""

    kind: int
    offset: int
    data: bytes


def records(log: Path) -> Iterator[Record]:
    """What the disk was told, in order."""
    with log.open("rb") as file:
        while head := file.read(_RECORD.size):
            kind, offset, length = _RECORD.unpack(head)
            yield Record(kind, offset, file.read(length))


class Disk:
    """Answers the kernel; ``content`` is the disk."""

    def __init__(self, size: int, log: BinaryIO) -> None:
        self.content = bytearray(size)
        self.log = log

    def record(self, kind: int, offset: int, data: bytes | memoryview) -> None:
        self.log.write(_RECORD.pack(kind, offset, len(data)))
        self.log.write(data)

    def answer(self, opcode: int, node: int, body: memoryview) -> bytes | int | None:
        """The reply's body, a negative errno, or None where none is wanted."""
        if opcode in {_FORGET, _BATCH_FORGET, _INTERRUPT, _DESTROY}:
            return None
        if opcode == _WRITE:
            return self.write(node, body)
        if opcode == _READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return bytes(self.content[offset : offset + size])
        if opcode == _FSYNC:
            self.record(FLUSH, 0, b"")
            return b""
        return self.other(opcode, node, body)

    def write(self, node: int, body: memoryview) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        data = body[40 : 40 + size]
        if node == _SAID:
            self.record(SAID, 0, data)
        else:
            self.content[offset : offset + size] = data
            self.record(WRITE, offset, data)
        return struct.pack("<II", size, 0)

    def other(self, opcode: int, node: int, body: memoryview) -> bytes | int:
        if opcode == _INIT:
            major, minor, readahead, flags = struct.unpack_from("<IIII", body)
            kept = flags & (_BIG_WRITES | _MAX_PAGES)
            told = struct.pack(
                "<IIIIHHIIHH", major, min(minor, 38), readahead, kept, 64, 48, _MAX_WRITE, 1, 256, 0
            )
            return told.ljust(64, b"\0")
        if opcode == _LOOKUP:
            found = {b"disk": _DISK, b"said": _SAID}.get(bytes(body).rstrip(b"\0"))
            if found is None:
                return -errno.ENOENT
            return struct.pack("<QQQQII", found, 0, 3600, 3600, 0, 0) + self.attributes(found)
        if opcode in {_GETATTR, _SETATTR}:
            return struct.pack("<QII", 3600, 0, 0) + self.attributes(node)
        if opcode == _OPEN:
            return struct.pack("<QII", node, _DIRECT_IO, 0)
        if opcode in {_RELEASE, _FLUSH}:
            return b""
        if opcode == _STATFS:
            return bytes(80)
        return -errno.ENOSYS

    def attributes(self, node: int) -> bytes:
        mode = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o600
        size = len(self.content) if node == _DISK else 0
        return struct.pack("<6Q10I", node, size, size >> 9, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def serve(folder: str, size: int, log: BinaryIO) -> None:
    """Mount, say so on standard output, answer until it is unmounted."""
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"recording", folder.encode(), b"fuse.recording", 0, options):
        raise OSError(ctypes.get_errno(), "mount")
    print("mounted", flush=True)
    disk = Disk(size, log)
    while True:
        try:
            request = memoryview(os.read(fuse, _MAX_WRITE + 4096))
        except OSError as error:
            if error.errno == errno.ENODEV:  # unmounted
                return
            if error.errno in {errno.ENOENT, errno.EINTR}:  # withdrawn while we looked
                continue
            raise
        _, opcode, unique, node, *_ = _IN.unpack_from(request)
        reply = disk.answer(opcode, node, request[_IN.size :])
        if reply is None:
            continue
        code, body = (reply, b"") if isinstance(reply, int) else (0, reply)
        os.write(fuse, _OUT.pack(_OUT.size + len(body), code, unique) + body)


if __name__ == "__main__":
    with open(sys.argv[3], "wb") as out:
        serve(sys.argv[1], int(sys.argv[2]), out)
