"""Folders in which files without a name begin (O_TMPFILE): a new file's place on disk comes from its folder.

ext4 looks for a free inode in the block group of the folder, from the group's beginning. Without a journal it steps
over every inode that was freed there in the last minutes, one by one: after 5,000 mails have been fetched and deleted,
each new one cost half a millisecond more. So files begin in FOLDERS folders that the file system is asked to spread
over the disk (the T attribute of chattr(1)), one after the other, and are then linked to where they belong.
It puts new folders where there are fewest yet, so the first ones come to lie together: more are made than needed, and
those beside others are removed again. No file ever has a name here, so there is nothing to clean up.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress

from mailserver.store import durable

FOLDERS = 64
_ATTEMPTS = 8 * FOLDERS
_GROUP = 8192  # inodes of a block group, unless who made the file system wanted other than the usual
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS of linux/fs.h
_TOP_OF_HIERARCHY = 0x20000  # FS_TOPDIR_FL


def prepare(root: str) -> list[str]:
    """Make the folders below ``root`` where missing; their paths, in the order of their inodes: mutt shows mail of one
    second in the order of its inodes, which so is the order of arrival as a rule. Blocking.

    One that cannot be made (a full disk must not prevent the start) is done without: files then begin below tmp/.
    """
    with suppress(OSError):
        durable.make_directory(root)
    return sorted(_folders(root), key=_inode)


def _folders(root: str) -> list[str]:
    with suppress(OSError):
        with os.scandir(root) as entries:
            found = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        if len(found) == FOLDERS:
            return found
        _spread(root)
        return _far_apart(root)
    # The hint is one that most file systems do not know, or the disk is full.
    folders = [f"{root}/{number:03x}" for number in range(FOLDERS)]
    for folder in folders:
        with suppress(OSError):
            os.mkdir(folder, 0o700)
    return folders


def _inode(folder: str) -> int:
    """0: it could not be made."""
    try:
        return os.stat(folder).st_ino
    except OSError:
        return 0


def _far_apart(root: str) -> list[str]:
    """FOLDERS new or old folders in as many block groups as possible."""
    groups: dict[int, str] = {}
    beside: list[str] = []
    for number in range(_ATTEMPTS):
        folder = f"{root}/{number:03x}"
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            if not os.path.isdir(folder):
                continue
        if groups.setdefault((_inode(folder) - 1) // _GROUP, folder) != folder:
            beside.append(folder)
        if len(groups) == FOLDERS:
            break
    folders = [*groups.values(), *beside]
    for folder in folders[FOLDERS:]:
        with suppress(OSError):
            os.rmdir(folder)
    return folders[:FOLDERS]


def _spread(root: str) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = struct.unpack("=i", fcntl.ioctl(fd, _GET_FLAGS, bytes(4)))[0]
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("=i", flags | _TOP_OF_HIERARCHY))
    finally:
        os.close(fd)
