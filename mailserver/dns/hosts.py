"""Names of /etc/hosts (hosts(5)), for routes that an administrator wrote: containers find neighbours there.

MX targets are never looked up here: mail routing is DNS's word only (RFC 5321 5.1).
"""

from __future__ import annotations

import ipaddress
import os


def parse(text: str) -> dict[str, tuple[str, ...]]:
    """Lower-case name → its addresses in the file's order. Malformed lines are skipped."""
    names: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        address, *aliases = line.partition("#")[0].split() or [""]
        try:
            address = str(ipaddress.ip_address(address))
        except ValueError:
            continue
        for alias in aliases:
            name = alias.lower()
            names[name] = (*names.get(name, ()), address)
    return names


class HostsFile:
    """The file at ``path``, read again when it changed; a missing or unreadable one is empty.

    Asked only when a connection is about to be made, and a few kilobytes long: read in place.
    """

    def __init__(self, path: str = "/etc/hosts") -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._names: dict[str, tuple[str, ...]] = {}

    def addresses(self, name: str) -> tuple[str, ...]:
        """The addresses of ``name``; () when the file does not know it."""
        try:
            stat = os.stat(self._path)
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp != self._stamp:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._names, self._stamp = parse(file.read()), stamp
        except OSError:
            return ()
        return self._names.get(name.rstrip(".").lower(), ())
