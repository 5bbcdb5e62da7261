"""The file system under load: what it is, and a journaled one in an image for machines whose own has no journal.

On ext4 without a journal creating a file steps over every inode freed in the last minutes (docs/decisions/006), so
emptying mailboxes between two workloads slows whoever comes next. Users' disks have a journal.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

from bench.places import PEERS_DIR, RUN, CannotRunError

_NEW_MOUNTS = 0x20000  # CLONE_NEWNS
_OPENSMTPD_SPOOL = Path("/var/spool/smtpd")  # compiled in


def mount_image(size: str) -> None:
    """A fresh journaled ext4 of ``size`` ("8G") at RUN, seen by this process and its children alone.

    The mount lives in a private name space and the image file has no name any more, so that both are gone with
    the last process, whatever ends it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS):
        raise CannotRunError(f"--image: no private mounts here: {os.strerror(ctypes.get_errno())}")
    image = PEERS_DIR / f"bench-{os.getpid()}.img"
    try:
        with image.open("wb") as file:
            file.truncate(_octets(size))
        _do("mount", "--make-rprivate", "/")
        _do("mkfs.ext4", "-q", "-F", "-i", "8192", "-O", "has_journal",
            "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))  # fmt: skip
        RUN.mkdir(exist_ok=True)
        _do("mount", "-o", "loop", str(image), str(RUN))
    finally:
        image.unlink(missing_ok=True)
    if _OPENSMTPD_SPOOL.exists():
        (RUN / "smtpd-spool").mkdir()
        _do("mount", "--bind", str(RUN / "smtpd-spool"), str(_OPENSMTPD_SPOOL))


def describe(path: Path) -> str:
    """ "ext4 with a journal on /dev/loop0": what is measured."""
    kind, source, device = _mount_of(path)
    if kind != "ext4":
        return f"{kind} on {source}"
    name = os.path.basename(os.path.realpath(f"/sys/dev/block/{device}"))
    journal = any(Path("/proc/fs/jbd2").glob(f"{name}-*"))
    return f"ext4 {'with a journal' if journal else 'WITHOUT a journal'} on {source}"


def _mount_of(path: Path) -> tuple[str, str, str]:
    """Kind, source and device number of the file system of ``path``."""
    number = os.stat(path).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == device:
            kind, source = rest.split()[:2]
            return kind, source, device
    return "an unknown file system", device, device


def _octets(size: str) -> int:
    return int(size[:-1]) << {"M": 20, "G": 30, "T": 40}[size[-1].upper()]


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRunError(f"--image: {command[0]}: {done.stderr.strip()}")
