"""What this process may touch of the file system, enforced by the kernel (Landlock, landlock(7)).

Written is only below the given folders; read and executed only what a mail server needs. Nothing that runs in us
later, a bug, a library or a foreign program, gets around it, root included. Sockets are left alone. It holds for
the calling thread and those it starts later, hence: before any thread exists, after files are opened that lie
elsewhere. Order in the program: bind → read keys → privileges.drop → no_new_privs → ``restrict`` → threads, loop.

Kernels before 5.19 (no Landlock, or ABI 1, which forbids every rename from one folder to another) run as before.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_CREATE_RULESET_VERSION, _RULE_PATH_BENEATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38
_O_FLAGS = os.O_PATH | os.O_CLOEXEC

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK, _REFER, _TRUNCATE, _IOCTL_DEV = 1 << 6, 1 << 11, 1 << 13, 1 << 14, 1 << 15
_ALL = (1 << 16) - 1
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV  # the others are a folder's
_READ = _READ_FILE | _READ_DIR
_WRITE = _ALL & ~(_EXECUTE | _MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV)  # what is written is never run
_SINCE = {2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
_SCOPE_SIGNAL = 1 << 1  # signals only to our own children
ABI_NEEDED = 2


class LandlockError(Exception):
    """The kernel does not confine us; ``str(error)`` says why. The server may run without."""


def abi() -> int:
    """Version of the kernel's Landlock; 0: it has none, or it is switched off."""
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)))


def restrict(run: Iterable[str], read: Iterable[str], write: Iterable[str]) -> int:
    """From here on programs are run from ``run`` only, only it, ``read`` and ``write`` are read, only below
    ``write`` is written; for good. The ABI used.

    Files and folders; links are followed, what does not exist is passed over. Raises LandlockError, and nothing is
    restricted then: no usable Landlock, threads exist already, or a folder of ``write`` cannot be opened.
    """
    version = abi()
    if version < ABI_NEEDED:
        why = "has no Landlock, or it is switched off" if not version else "knows Landlock ABI 1 only"
        raise LandlockError(f"the kernel {why} (Linux 5.19 or newer, `lsm=` with landlock)")
    if len(os.listdir("/proc/self/task")) != 1:
        raise LandlockError("threads exist already")
    handled = _ALL
    for since, right in _SINCE.items():
        handled &= ~right if version < since else _ALL
    attributes = struct.pack("=QQQ", handled, 0, _SCOPE_SIGNAL if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _call(_CREATE_RULESET, attributes[:size], ctypes.c_size_t(size), 0)
    try:
        for path in run:
            _allow(ruleset, path, (_READ | _EXECUTE) & handled, missing_ok=True)
        for path in read:
            _allow(ruleset, path, _READ & handled, missing_ok=True)
        for path in write:
            _allow(ruleset, path, (_READ | _WRITE) & handled, missing_ok=False)
        if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise LandlockError("prctl(PR_SET_NO_NEW_PRIVS) is refused")
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: str, rights: int, *, missing_ok: bool) -> None:
    try:
        place = os.open(path, _O_FLAGS)
    except OSError as error:
        if missing_ok:
            return
        raise LandlockError(f"{path}: {error.strerror}") from error
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_A_FILE
        _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    except LandlockError as error:
        raise LandlockError(f"{path}: {error}") from error
    finally:
        os.close(place)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc().syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise LandlockError(f"system call {number}: {errno.errorcode.get(code, code)}")
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
