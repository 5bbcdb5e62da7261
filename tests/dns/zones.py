"""A zone as data, served twice: by a dict-backed resolver and by a real DNS server (dnslib) on loopback.

``Zone``: name → {"MX": [(preference, host)], "A": […], "AAAA": […], "CNAME": name} or a fault:
"SERVFAIL", "TIMEOUT". A name that is missing is NXDOMAIN, a type that is missing NODATA.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from typing import Any

import dnslib

from mailserver.config.units import SocketAddress
from mailserver.dns.answers import MX, DnsUnavailable, NoRecords, NoSuchName

Zone = dict[str, Any]


class DictResolver:
    """What ``Resolver`` answers, straight from a Zone."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.asked: Counter[str] = Counter()

    async def mx(self, domain: str) -> tuple[MX, ...]:
        return tuple(MX(p, h.rstrip(".").lower() or ".") for p, h in self._find(domain, "MX"))

    async def addresses(self, host: str) -> tuple[str, ...]:
        if host == "localhost":
            return ("127.0.0.1", "::1")
        found: list[str] = []
        errors = []
        for rrtype in ("AAAA", "A"):
            try:
                found += self._find(host, rrtype)
            except (NoSuchName, NoRecords, DnsUnavailable) as error:
                errors.append(error)
        if found:
            return tuple(found)
        raise next((e for e in errors if isinstance(e, DnsUnavailable)), errors[0])

    async def close(self) -> None:
        pass

    def _find(self, name: str, rrtype: str) -> list[Any]:
        self.asked[f"{name} {rrtype}"] += 1
        entry = self.zone.get(name.lower().rstrip("."))
        if entry is None:
            raise NoSuchName(name)
        if isinstance(entry, str):
            raise DnsUnavailable(name)
        if rrtype in entry:
            if entry[rrtype] == "SERVFAIL":
                raise DnsUnavailable(name)
            return list(entry[rrtype])
        if "CNAME" in entry:
            return self._find(entry["CNAME"], rrtype)
        raise NoRecords(name)


class ZoneServer:
    """Answers by UDP and TCP on one free port of 127.0.0.1; answers beyond ``udp_max`` are truncated (TC)."""

    def __init__(self, zone: Zone, *, ttl: int = 300, udp_max: int = 512) -> None:
        self.zone, self.ttl, self.udp_max = zone, ttl, udp_max
        self._clients: list[asyncio.StreamWriter] = []
        self.asked = asyncio.Event()
        self.queries: list[tuple[str, str, str]] = []  # transport, name, type

    async def __aenter__(self) -> ZoneServer:
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", 0)
        self.port = self._tcp.sockets[0].getsockname()[1]
        server = self

        class Udp(asyncio.DatagramProtocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: Any) -> None:
                if reply := server.answer(data, "udp"):
                    self.transport.sendto(reply, addr)

        self._udp, _ = await loop.create_datagram_endpoint(Udp, local_addr=("127.0.0.1", self.port))
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self._udp.close()
        self._tcp.close()
        for writer in self._clients:
            writer.transport.abort()
        await self._tcp.wait_closed()
        await asyncio.gather(*(writer.wait_closed() for writer in self._clients), return_exceptions=True)

    @property
    def address(self) -> SocketAddress:
        return SocketAddress("127.0.0.1", self.port)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.append(writer)
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                if reply := self.answer(await reader.readexactly(length), "tcp"):
                    writer.write(struct.pack("!H", len(reply)) + reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def answer(self, data: bytes, transport: str) -> bytes | None:
        request = dnslib.DNSRecord.parse(data)
        name, rrtype = str(request.q.qname).rstrip(".").lower(), dnslib.QTYPE[request.q.qtype]
        self.queries.append((transport, name, rrtype))
        self.asked.set()
        reply = request.reply()
        entry = self.zone.get(name)
        if entry == "TIMEOUT":
            return None
        if entry is None:
            reply.header.rcode = dnslib.RCODE.NXDOMAIN
        elif entry == "SERVFAIL" or (isinstance(entry, dict) and entry.get(rrtype) == "SERVFAIL"):
            reply.header.rcode = dnslib.RCODE.SERVFAIL
        else:
            self._fill(reply, name, rrtype)
        packet: bytes = reply.pack()
        if transport == "udp" and len(packet) > self.udp_max:
            short = reply.truncate()
            short.add_question(request.q)  # dnslib leaves it out, and c-ares is right to complain
            packet = bytes(short.pack())
        return packet

    def _fill(self, reply: Any, name: str, rrtype: str) -> None:
        entry = self.zone.get(name, {})
        if "CNAME" in entry:
            reply.add_answer(dnslib.RR(name, 5, ttl=self.ttl, rdata=dnslib.CNAME(entry["CNAME"])))
            self._fill(reply, entry["CNAME"], rrtype)
            return
        for value in entry.get(rrtype, ()):
            rdata = {
                "MX": lambda v: dnslib.MX(v[1], v[0]),
                "A": dnslib.A,
                "AAAA": dnslib.AAAA,
            }[rrtype](value)
            reply.add_answer(dnslib.RR(name, getattr(dnslib.QTYPE, rrtype), ttl=self.ttl, rdata=rdata))
