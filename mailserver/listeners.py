"""Which service listens where: bound before privileges go, handed to the services, compared at a reload."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from mailserver.config.schema import Config
from mailserver.config.trust import Proxy
from mailserver.config.units import SocketAddress
from mailserver.host.listening import Server
from mailserver.host.sockets import Activated, address_of, bind
from mailserver.introduction import ANY
from mailserver.policy.networks import Networks, parse_address
from mailserver.policy.proxy_protocol import expected, looks_at_headers

SERVICES = ("smtp", "submission", "lmtp", "pop3")
Key = tuple[str, bool]  # service, TLS from the first octet


class Service(Protocol):
    """What SmtpService and Pop3Service have in common here."""

    servers: list[Server]

    async def start(self, sockets: list[socket.socket], tls_sockets: list[socket.socket]) -> None: ...


def wanted(config: Config) -> dict[Key, list[SocketAddress]]:
    """The configured addresses of every enabled service."""
    return {
        (name, tls): list(getattr(section, "listen_tls" if tls else "listen", ())) if section.enabled else []
        for name in SERVICES
        for tls in (False, True)
        for section in (getattr(config, name),)
    }


def _names(key: Key) -> str:
    return f"{key[0]}-tls" if key[1] else key[0]


class Listeners:
    """The open listening sockets. Raises ListenError when one cannot be opened; nothing stays open then."""

    def __init__(self, config: Config) -> None:
        activated = Activated()
        self._sockets: dict[Key, dict[SocketAddress, socket.socket]] = {}
        for key, addresses in wanted(config).items():
            found = bind(addresses, _names(key), activated)
            asked = addresses if len(addresses) == len(found) else [address_of(s) for s in found]
            self._sockets[key] = dict(zip(asked, found, strict=True))
        self.unused = tuple(f"no listener uses the socket {name}" for name in activated.close_unused())

    def take(self, name: str) -> tuple[list[socket.socket], list[socket.socket]]:
        """The plain and the TLS sockets of a service."""
        return list(self._sockets[name, False].values()), list(self._sockets[name, True].values())

    def described(self, proxy: Proxy) -> list[dict[str, Any]]:
        """Service, address and TLS of every listener, for `health`; and by which of policy/proxy_protocol's Expected
        this machine's own connections are judged there."""
        return [
            {
                "service": name,
                "host": address.host,
                "port": address.port,
                "tls": tls,
                "begins_with": _begins_with(proxy, address),
            }
            for (name, tls), address in self._open()
        ]

    def shown(self) -> tuple[str, ...]:
        """ "smtp 127.0.0.1:2525", …"""
        return tuple(f"{_names(key)} {address}" for key, address in self._open())

    def is_own(self, host: str, port: int) -> bool:
        """Whether connecting there would reach one of our own mail listeners (a loop)."""
        host = _reached(host)
        return any(
            name != "pop3" and address_of(listener).port == port and _takes(listener, host)
            for (name, _), sockets in self._sockets.items()
            for listener in _still_open(sockets)
        )

    def _open(self) -> Iterator[tuple[Key, SocketAddress]]:
        for key, sockets in self._sockets.items():
            yield from ((key, address_of(listener)) for listener in _still_open(sockets))

    def prepare(self, config: Config, before: Config) -> Change:
        """Open what ``config`` wants and we do not have, compared with what was in force ``before``. Raises
        ListenError with nothing changed.

        A listener on which headers of the PROXY protocol begin or cease to be looked at is opened again, on a
        duplicate of its socket: who waits to be accepted stays in its queue.
        """
        new: dict[Key, dict[SocketAddress, socket.socket]] = {}
        gone: dict[Key, list[SocketAddress]] = {}
        asked = wanted(config)
        try:
            for key, have in self._sockets.items():
                missing = [a for a in asked[key] if a not in have]
                new[key] = dict(zip(missing, bind(missing, _names(key)), strict=True))
                again = [a for a in asked[key] if a in have and _turned(have[a], before, config)]
                new[key].update({a: have[a].dup() for a in again})
                gone[key] = [a for a in have if a not in asked[key] or a in again]
        except BaseException:
            Change(self._sockets, new, {}).abandon()
            raise
        return Change(self._sockets, new, gone)


class Change:
    """The difference a reload makes: apply it, or abandon it."""

    def __init__(
        self,
        sockets: dict[Key, dict[SocketAddress, socket.socket]],
        new: dict[Key, dict[SocketAddress, socket.socket]],
        gone: dict[Key, list[SocketAddress]],
    ) -> None:
        self._sockets, self._new, self._gone = sockets, new, gone

    def abandon(self) -> None:
        """Close what was opened for it."""
        for sockets in self._new.values():
            for s in sockets.values():
                s.close()

    async def apply(self, services: Mapping[str, Service]) -> tuple[int, int]:
        """Stop listening where that is over, serve the new sockets; numbers of both. Sessions stay."""
        for key, addresses in self._gone.items():
            for address in addresses:
                _close(services[key[0]], self._sockets[key].pop(address).fileno())
        for name in SERVICES:
            plain, tls = self._new[name, False], self._new[name, True]
            if plain or tls:
                await services[name].start(list(plain.values()), list(tls.values()))
        for key, sockets in self._new.items():
            self._sockets[key].update(sockets)
        return sum(map(len, self._new.values())), sum(map(len, self._gone.values()))


def _begins_with(proxy: Proxy, address: SocketAddress) -> str:
    ours = ANY.get(address.host, address.host)
    return expected(proxy, Networks(proxy.trusted), address, ours).value


def _turned(listener: socket.socket, before: Config, now: Config) -> bool:
    """Whether headers of proxies are looked at there now and were not, or the other way round."""
    address = address_of(listener)
    return looks_at_headers(before.proxy, address) != looks_at_headers(now.proxy, address)


def _close(service: Service, descriptor: int) -> None:
    for server in list(service.servers):
        if any(s.fileno() == descriptor for s in server.sockets):
            server.close()
            service.servers.remove(server)


def _still_open(sockets: Mapping[SocketAddress, socket.socket]) -> list[socket.socket]:
    """A drain has closed them while deliveries still ask."""
    return [s for s in sockets.values() if s.fileno() >= 0]


def _reached(host: str) -> str:
    """Where the kernel connects to for ``host``: IPv4-mapped IPv6 is IPv4, the unspecified address this machine."""
    address = str(parse_address(host) or host)
    return ANY.get(address, address)


def _takes(listener: socket.socket, host: str) -> bool:
    """Whether a connection to ``host`` comes to ``listener``. One for all of IPv6 takes IPv4, too, where the service
    manager opened it so."""
    own = address_of(listener).host
    if own == host or own not in ANY:
        return own == host
    same = (":" in own) == (":" in host)
    both = own == "::" and not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return (same or both) and _is_local(host)


def _is_local(host: str) -> bool:
    """Whether ``host`` is an address of this machine: one can be bound to, nothing is sent."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True
