"""Listening TCP sockets: ours by address, or handed over by the service manager (sd_listen_fds(3)).

Every failure is a ListenError whose text names the address, who is in the way and what to do about it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import sys
import termios
from collections.abc import MutableMapping, Sequence

from mailserver.config.units import SocketAddress
from mailserver.host.ports import holder

BACKLOG = 2048  # connections the kernel keeps for us until they are accepted; net.core.somaxconn may cap it
FIRST_FD = 3  # SD_LISTEN_FDS_START


class ListenError(OSError):
    """An address cannot be listened on; ``str(error)`` is for the administrator: what is ``wrong``, what would be
    ``right``."""

    def __init__(self, number: int | None, listener: str, wrong: str, right: str) -> None:
        super().__init__(number, f"{listener}: {wrong}: {right}")
        self.wrong, self.right = wrong, right

    def __str__(self) -> str:
        return str(self.strerror)


class Activated:
    """The sockets a service manager opened for us, by LISTEN_FDS and LISTEN_FDNAMES.

    A socket belongs to the service it is named after (``FileDescriptorName=pop3`` or ``pop3-tls``), or else
    to the listener that has the same address in the configuration. The variables are taken out of
    ``environ``, so that no child process believes they are its own.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ, *, first_fd: int = FIRST_FD) -> None:
        ours = environ.pop("LISTEN_PID", "") == str(os.getpid())
        count, names = environ.pop("LISTEN_FDS", "0"), environ.pop("LISTEN_FDNAMES", "").split(":")
        self._left: list[tuple[str, socket.socket]] = []
        for index in range(int(count) if ours and count.isdigit() else 0):
            inherited = socket.socket(fileno=first_fd + index)
            inherited.setblocking(False)
            inherited.set_inheritable(False)
            self._left.append((names[index] if index < len(names) else "", inherited))

    def take(self, service: str, addresses: Sequence[SocketAddress]) -> list[socket.socket]:
        """The sockets named ``service`` or bound to one of ``addresses``; each is given out once."""
        taken = [s for name, s in self._left if name == service or address_of(s) in addresses]
        self._left = [(name, s) for name, s in self._left if s not in taken]
        return taken

    def close_unused(self) -> list[str]:
        """Close what no service took; name and address of each, for a warning."""
        unused = [f"{name} {s.getsockname()}".lstrip() for name, s in self._left]
        for _name, left in self._left:
            left.close()
        self._left = []
        return unused


def unread(transport: asyncio.BaseTransport) -> int:
    """Octets that have arrived and wait in the kernel; 0 for what is no socket, or none any more."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return 0
    try:
        counted = fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(counted, sys.byteorder)


def bind(
    addresses: Sequence[SocketAddress], service: str, activated: Activated | None = None
) -> list[socket.socket]:
    """Non-blocking sockets that listen on ``addresses`` (port 0: any free one), in that order.

    Sockets in ``activated`` at these addresses take their places. If one named ``service`` has another
    address, the service manager decides: its sockets are all there is. Raises ListenError and leaves nothing
    open.
    """
    inherited = activated.take(service, addresses) if activated else []
    have = {address_of(s): s for s in inherited}
    if any(address not in addresses for address in have):
        return inherited
    found: list[socket.socket] = []
    try:
        for address in addresses:
            ready = have.pop(address) if address in have else _listen(address, service)
            found.append(ready)
    except ListenError:
        for opened in {*found, *inherited}:
            opened.close()
        raise
    return found


def try_address(address: SocketAddress, service: str) -> None:
    """Raises ListenError if ``bind`` would; nobody can connect meanwhile."""
    _bound(address, service).close()


def _listen(address: SocketAddress, service: str) -> socket.socket:
    listener = _bound(address, service)
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _explained(error, address, service) from error
    return listener


def _bound(address: SocketAddress, service: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _explained(error, address, service) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # restart beside TIME_WAIT
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # [::] and 0.0.0.0 side by side
        listener.setblocking(False)
        listener.bind(_with_scope(address))
    except OSError as error:
        listener.close()
        raise _explained(error, address, service) from error
    return listener


def _with_scope(address: SocketAddress) -> tuple[str, int] | tuple[str, int, int, int]:
    """What bind(2) takes: a zone (``fe80::1%eth0``, RFC 4007) by its number. Raises OSError for an unknown one."""
    host, percent, zone = address.host.partition("%")
    if not percent:
        return address
    try:
        return host, address.port, 0, int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    except OSError as error:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from error


def address_of(listener: socket.socket) -> SocketAddress:
    """Where it listens, as configured: a zone by the name of its interface, or by its number if that is gone."""
    host, port, *rest = listener.getsockname()
    number = rest[1] if listener.family == socket.AF_INET6 else 0
    if not number:
        return SocketAddress(host, port)
    try:
        zone = socket.if_indextoname(number)
    except OSError:
        zone = str(number)
    return SocketAddress(f"{host}%{zone}", port)


def _explained(error: OSError, address: SocketAddress, service: str) -> ListenError:
    elsewhere = f'or choose another address: [{service.removesuffix("-tls")}] listen = ["…"]'
    match error.errno:
        case errno.EADDRINUSE:
            by = holder(address)
            wrong = f"the port is in use by {by.description if by else 'a program of another user'}"
            right = by.fix if by else "look with `ss -ltnp` as root"
        case errno.EACCES | errno.EPERM:
            wrong = "ports below 1024 need a privilege"
            right = (
                "start as root with run_as set, or with CAP_NET_BIND_SERVICE (packaging/mailserver.service)"
            )
        case errno.EADDRNOTAVAIL:
            wrong, right = "this machine has no such address", "look with `ip address`"
        case errno.ENODEV:
            wrong, right = "this machine has no such interface", "look with `ip link`"
        case errno.EINVAL if address.host.startswith("fe80:") and "%" not in address.host:
            wrong, right = (
                "a link-local address needs its interface",
                f"write [{address.host}%eth0]:{address.port}",
            )
        case errno.EAFNOSUPPORT:
            wrong, right = "this machine has IPv6 switched off", "remove the address"
        case _:
            wrong, right = str(error.strerror), "look with `ss -ltnp` and `ip address`"
    listener = f"{service}: cannot listen on {address}"
    return ListenError(error.errno, listener, wrong, f"{right}, {elsewhere}")
