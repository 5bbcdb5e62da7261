"""Name look-ups for mail: MX and addresses, cached, coalesced and bounded. The only importer of aiodns.

Answers are kept for their TTL, at most an hour (RFC 1035 3.2.1); NXDOMAIN and NODATA for a minute, because
c-ares hides the SOA that RFC 2308 would take the time from. Temporary faults are never cached. Only A-labels
may be asked for. c-ares keeps a second cache per channel that can neither be switched off nor bounded: a channel is
replaced when it may have kept too much, and by ``flush``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import aiodns
import pycares

from mailserver.config.units import SocketAddress
from mailserver.dns.answers import MX, DnsError, DnsUnavailable, NoRecords, NoSuchName

__all__ = ["MX", "DnsError", "DnsUnavailable", "NoRecords", "NoSuchName", "Resolver"]

CACHE_ENTRIES = 10_000
RECORDS_MAX = 100  # of one answer: 64 KiB hold thousands. Of exchangers the best
CHANNEL_RECORDS = 50_000  # that c-ares may have kept in one channel, at about 250 octets
QUESTION = 4  # records that a question takes the room of, whatever the answer
MAX_TTL = 3600.0
NEGATIVE_TTL = 60.0
QUERIES_IN_FLIGHT = 256
TIMEOUTS_BEFORE_REBUILD = 5
LOOPBACK = ("127.0.0.1", "::1")

_NXDOMAIN = pycares.errno.ARES_ENOTFOUND
_NODATA = pycares.errno.ARES_ENODATA
_BAD_NAME = pycares.errno.ARES_EBADNAME
_TIMED_OUT = pycares.errno.ARES_ETIMEOUT
_Type = Literal["MX", "A", "AAAA"]
_Key = tuple[str, _Type]


class _Answer(NamedTuple):
    """The result of one question: records of its type, or the ``error``. Valid until ``expires`` (clock)."""

    expires: float
    error: type[DnsError] | None
    mx: tuple[MX, ...] = ()
    addresses: tuple[str, ...] = ()


class Resolver:
    """Asks ``servers`` (none: the system's), each question for at most ``timeout`` seconds.

    The c-ares channel and its thread are made at the first question, so after a fork or a privilege drop.
    ``clock`` gives seconds of any monotonic origin.
    """

    def __init__(
        self,
        servers: Sequence[SocketAddress] = (),
        timeout: float = 5.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = [str(server) for server in servers]
        self._timeout = timeout
        self._clock = clock
        self._channel: aiodns.DNSResolver | None = None
        self._kept = 0  # records, by the channel
        self._cache: dict[_Key, _Answer] = {}
        self._asking: dict[_Key, asyncio.Task[_Answer]] = {}
        self._slots = asyncio.Semaphore(QUERIES_IN_FLIGHT)
        self._timeouts = 0
        self._closed = False

    async def mx(self, domain: str) -> tuple[MX, ...]:
        """The mail exchangers of ``domain``, in the order of the answer. Raises DnsError."""
        answer = await self._look_up(domain, "MX")
        if answer.error is not None:
            raise answer.error(f"{domain}: {_WORDS[answer.error]} (MX)")
        return answer.mx

    async def addresses(self, host: str) -> tuple[str, ...]:
        """IPv6, then IPv4 addresses of ``host``; ``localhost`` is answered without asking (RFC 6761 6.3).

        Raises DnsError. One family is enough: the other's fault is not reported then.
        """
        name = host.rstrip(".").lower()
        if name == "localhost" or name.endswith(".localhost"):
            return LOOPBACK
        six, four = await asyncio.gather(self._look_up(name, "AAAA"), self._look_up(name, "A"))
        if found := six.addresses + four.addresses:
            return found
        errors = {six.error, four.error}
        for error in (DnsUnavailable, NoRecords, NoSuchName):
            if error in errors:
                raise error(f"{host}: {_WORDS[error]} (A, AAAA)")
        raise AssertionError("an answer has records or an error")

    def reconfigure(self, servers: Sequence[SocketAddress], timeout: float) -> None:
        """Ask these from now on; what was answered before is forgotten when they are others."""
        names = [str(server) for server in servers]
        self._timeout = timeout
        if names != self._servers:
            self._servers = names
            self.flush()

    def flush(self) -> None:
        """Forget every cached answer, c-ares' own included."""
        self._cache.clear()
        self._drop_channel()

    async def close(self) -> None:
        """Cancel what is being asked (askers get DnsUnavailable), end the thread. Harmless when repeated."""
        self._closed = True
        self._drop_channel()
        if self._asking:
            await asyncio.wait(list(self._asking.values()))

    def status(self) -> dict[str, int]:
        """Counts for people."""
        return {"cached": len(self._cache), "asking": len(self._asking)}

    async def _look_up(self, name: str, rrtype: _Type) -> _Answer:
        """From the cache, else from the question already under way, else by asking."""
        if not name.isascii():
            raise ValueError(f"{name!r}: only A-labels may be looked up")
        key = (name.rstrip(".").lower(), rrtype)
        answer = self._cache.get(key)
        if answer is not None and answer.expires > self._clock():
            return answer
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        # The question is its own task: an asker that gives up must not take the answer away from the others.
        return await asyncio.shield(task)

    async def _ask(self, key: _Key) -> _Answer:
        async with self._slots:
            answer = await self._query(*key)
        if answer.error is not DnsUnavailable:
            self._remember(key, answer)
        return answer

    async def _query(self, name: str, rrtype: _Type) -> _Answer:
        if self._closed:
            return _UNAVAILABLE
        if self._kept > CHANNEL_RECORDS:
            self._channel = None  # who still asks by it gets his answer; then it is gone
        channel = self._channel or self._open_channel()
        self._kept += QUESTION
        try:
            async with asyncio.timeout(self._timeout):
                result = await channel.query_dns(name, rrtype)
        except TimeoutError:
            self._timed_out(channel)
            return _UNAVAILABLE
        except aiodns.error.DNSError as error:
            return self._failure(channel, error.args[0])
        self._timeouts = 0
        self._kept += len(result.answer) + len(result.authority) + len(result.additional)
        return _read(result.answer, rrtype, self._clock())

    def _failure(self, channel: aiodns.DNSResolver, code: int) -> _Answer:
        if code == _TIMED_OUT:
            self._timed_out(channel)
        else:
            self._timeouts = 0
        if code in {_NXDOMAIN, _BAD_NAME}:
            return _Answer(self._clock() + NEGATIVE_TTL, NoSuchName)
        if code == _NODATA:
            return _Answer(self._clock() + NEGATIVE_TTL, NoRecords)
        return _UNAVAILABLE

    def _timed_out(self, channel: aiodns.DNSResolver) -> None:
        """c-ares' thread was seen to sleep for ever after a timeout (c-ares issue 1000): start a new one."""
        self._timeouts += 1
        if self._timeouts >= TIMEOUTS_BEFORE_REBUILD and channel is self._channel:
            self._timeouts = 0
            self._drop_channel()

    def _open_channel(self) -> aiodns.DNSResolver:
        # Two tries, the second twice as patient, fit into our own timeout, which has the last word.
        first = max(self._timeout / 3, 0.05)
        self._kept = 0
        self._channel = aiodns.DNSResolver(nameservers=self._servers or None, timeout=first, tries=2)
        return self._channel

    def _drop_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.cancel()  # every callback runs now, while there is a loop to receive it
            with contextlib.suppress(StopIteration):
                channel.close().send(None)  # a coroutine without a single await: it needs no task

    def _remember(self, key: _Key, answer: _Answer) -> None:
        if len(self._cache) >= CACHE_ENTRIES:
            now = self._clock()
            self._cache = {k: a for k, a in self._cache.items() if a.expires > now}
            for old in list(self._cache)[: len(self._cache) - CACHE_ENTRIES // 2]:
                del self._cache[old]  # still full: the older half goes
        self._cache[key] = answer


_UNAVAILABLE = _Answer(0.0, DnsUnavailable)
_WORDS: dict[type[DnsError], str] = {
    NoSuchName: "no such name",
    NoRecords: "no records",
    DnsUnavailable: "name service not available",
}


def _host(name: str) -> str:
    """c-ares gives the root as "" (seen): the null MX is "." everywhere else."""
    return name.rstrip(".").lower() or "."


def _read(records: Sequence[pycares.DNSRecord], rrtype: _Type, now: float) -> _Answer:
    """Only records of the type asked for count: a CNAME chain comes along, or even stands alone (seen). At most
    RECORDS_MAX of them."""
    mx, addresses, ttl = [], [], MAX_TTL
    for record in records:
        data = record.data
        if rrtype == "MX" and isinstance(data, pycares.MXRecordData):
            mx.append(MX(data.priority, _host(data.exchange)))
        elif (rrtype == "A" and isinstance(data, pycares.ARecordData)) or (
            rrtype == "AAAA" and isinstance(data, pycares.AAAARecordData)
        ):
            addresses.append(data.addr)
        else:
            continue
        ttl = min(ttl, record.ttl)
    if not mx and not addresses:
        return _Answer(now + NEGATIVE_TTL, NoRecords)
    if len(mx) > RECORDS_MAX:
        mx.sort(key=lambda record: record.preference)
    return _Answer(now + ttl, None, tuple(mx[:RECORDS_MAX]), tuple(addresses[:RECORDS_MAX]))
