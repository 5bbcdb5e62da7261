"""A file of secrets at its beginning: never empty, and never anybody else's to read."""

from __future__ import annotations

import contextlib
import os
import time

_PATIENCE = 1.0  # seconds: whoever has just made the file is about to write into it
_LOOK = 0.01  # seconds


def create_private(path: str, content: bytes) -> None:
    """Make the file with mode 0600 and write ``content``, unless it exists. A folder's owner gets what root makes
    there, so that a command run by root leaves no file the server cannot open. Raises OSError, and leaves none then: a
    disk that was full at the first start must not look like a lost file at the next."""
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                if os.geteuid() == 0:
                    owner = os.stat(folder)
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
        except OSError:
            os.unlink(path)
            raise


def is_empty(path: str) -> bool:
    """Whether a file that exists holds nothing, and nobody is making it in this moment. Blocking; raises OSError."""
    end = time.monotonic() + _PATIENCE
    while os.stat(path).st_size == 0:
        if time.monotonic() > end:
            return True
        time.sleep(_LOOK)
    return False
