"""Which file systems make names durable in the order in which they were made.

ext4 with a journal and XFS have one log: an fsync of a file writes it up to the last change of that file, so
everything that was done before is durable, too. No standard says so; on any other file system nothing is taken for
granted (docs/decisions/007-one-fsync.md).
"""

from __future__ import annotations

import os
from contextlib import suppress


def has_one_log(device: int) -> bool:
    """Whether the file system on ``device`` (st_dev) is one of those. Blocking; what cannot be found out is False."""
    with suppress(OSError):
        number = f"{os.major(device)}:{os.minor(device)}"
        kind = _kind(number)
        return kind == "xfs" or (kind == "ext4" and _has_journal(number))
    return False


def _kind(number: str) -> str:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            mount, _, system = line.partition(" - ")
            if mount.split()[2] == number:
                return system.split()[0]
    return ""


def _has_journal(number: str) -> bool:
    """Whether a thread of the kernel keeps one; /proc/fs/jbd2 would say it too, but not in a sandbox of systemd's."""
    name = os.path.basename(os.path.realpath(f"/sys/dev/block/{number}"))
    with open(f"/sys/fs/ext4/{name}/journal_task", encoding="ascii") as task:
        return task.read().strip().isdigit()
