"""A self-signed certificate for the first start."""

from __future__ import annotations

import subprocess
import sys


def make_self_signed(certificate: str, key: str, hostname: str) -> None:
    """Write an ECDSA P-256 key (mode 0600) and its certificate for ``hostname``; folders are made (0700).

    A child process does it: what it imports would stay in our memory. Existing files are overwritten.
    Blocking, about 0.3 s. Raises OSError.
    """
    command = [sys.executable, "-m", "mailserver.host.self_signed", certificate, key, hostname]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise OSError(f"tls: cannot make {certificate} and {key}: {reason}")
