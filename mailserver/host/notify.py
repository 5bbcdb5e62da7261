"""Telling the service manager how we are (sd_notify(3)). Without NOTIFY_SOCKET every function does nothing.

A service manager that is gone must not take mail down with it, so failures to send are not errors.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time


def ready(status: str = "") -> bool:
    """Start-up or reload is finished. Like all here: True when a service manager was told."""
    return _send("READY=1", _status(status))


def reloading(status: str = "reloading") -> bool:
    """A reload begins; ``ready`` ends it (Type=notify-reload, hence the time)."""
    return _send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", _status(status))


def stopping(status: str = "draining") -> bool:
    """We are about to end."""
    return _send("STOPPING=1", _status(status))


def status(text: str) -> bool:
    """One line for ``systemctl status``."""
    return _send(_status(text))


def watchdog() -> bool:
    """A sign of life; to be given every ``watchdog_interval()`` seconds from the event loop itself."""
    return _send("WATCHDOG=1")


def watchdog_interval() -> float | None:
    """Seconds between signs of life (half of what the manager tolerates); None: nobody waits for them."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2e6 if ours and microseconds.isdecimal() and int(microseconds) else None


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.splitlines())}" if text else ""


def _send(*variables: str) -> bool:
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    message = "\n".join(filter(None, variables)).encode()
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(message, address)
        return True
    return False
