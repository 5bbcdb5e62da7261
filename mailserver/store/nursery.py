"""Folders in which files without a name begin (O_TMPFILE): a new file's place on disk comes from its folder.

ext4 looks for a free inode in the block group of the folder, from the group's beginning. Without a journal it steps
over every inode that was freed there in the last minutes, one by one: after 5,000 mails have been fetched and deleted,
each new one cost half a millisecond more. So files begin in FOLDERS folders that the file system is asked to spread
over the disk (the T attribute of chattr(1)), one after the other, and are then linked to where they belong.
Names exist here never, so there is nothing to clean up.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress

from mailserver.store import durable

FOLDERS = 64
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS of linux/fs.h
_TOP_OF_HIERARCHY = 0x20000  # FS_TOPDIR_FL


def prepare(root: str) -> list[str]:
    """Make the folders below ``root`` where missing; their paths. Blocking.

    One that cannot be made (a full disk must not prevent the start) is done without: files then begin below tmp/.
    """
    with suppress(OSError):
        durable.make_directory(root)
    with suppress(OSError):  # a hint that most file systems do not know
        _spread(root)
    folders = [f"{root}/{number:02x}" for number in range(FOLDERS)]
    for folder in folders:
        with suppress(OSError):
            os.mkdir(folder, 0o700)
    return folders


def _spread(root: str) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = struct.unpack("=i", fcntl.ioctl(fd, _GET_FLAGS, bytes(4)))[0]
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("=i", flags | _TOP_OF_HIERARCHY))
    finally:
        os.close(fd)
