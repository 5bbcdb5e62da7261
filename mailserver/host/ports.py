"""Which program holds a TCP port: socket tables joined with all processes' descriptors (proc(5))."""

from __future__ import annotations

import contextlib
import glob
import os
import socket
import sys
from typing import NamedTuple

from mailserver.config.units import SocketAddress

_LISTEN = "0A"  # st of /proc/net/tcp


class Holder(NamedTuple):
    """``program`` with its process id; ``unit`` is its systemd service, if any."""

    pid: int
    program: str
    unit: str

    @property
    def description(self) -> str:
        """For an error message."""
        return f"{self.program} (pid {self.pid})"

    @property
    def fix(self) -> str:
        """How to make it go."""
        return f"`systemctl stop {self.unit}`" if self.unit else f"`kill {self.pid}`"


def holder(address: SocketAddress) -> Holder | None:
    """Who listens on ``address`` or on all addresses of that port; None when it is not ours to see.

    Blocking: walks /proc once, some milliseconds. Only called when binding has failed.
    """
    inodes = _listening(address)
    for path in glob.iglob("/proc/[0-9]*/fd/*") if inodes else ():
        with contextlib.suppress(OSError):  # processes and descriptors come and go, and some are not ours
            if os.readlink(path) in inodes:
                pid = int(path.split("/")[2])
                return Holder(pid, _read(pid, "comm").strip(), _unit(pid))
    return None


def _listening(address: SocketAddress) -> set[str]:
    """The "socket:[inode]" links of sockets in the way of ``address``."""
    wanted = {_packed(address.host), _packed("0.0.0.0"), _packed("::")}  # noqa: S104 - compared, not bound
    anything = address.host in ("0.0.0.0", "::")  # noqa: S104 - as above
    found = set()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                host, _, port = fields[1].partition(":")
                in_the_way = anything or _unpacked(host) in wanted
                if fields[3] == _LISTEN and int(port, 16) == address.port and in_the_way:
                    found.add(f"socket:[{fields[9]}]")
    return found


def _packed(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def _unpacked(text: str) -> bytes:
    """The kernel prints addresses as 32-bit words in the machine's own byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return b"".join(word.to_bytes(4, sys.byteorder) for word in words)


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()


def _unit(pid: int) -> str:
    """The last part of the control group that is a service ("0::/system.slice/postfix.service")."""
    parts = _read(pid, "cgroup").replace("\n", "/").split("/")
    return next((part for part in reversed(parts) if part.endswith(".service")), "")
