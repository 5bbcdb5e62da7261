"""The same questions to the dict-backed resolver of our tests and to the real one against a real server."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from zones import DictResolver, ZoneServer

from mailserver.dns.hosts import HostsFile
from mailserver.dns.resolver import MX, RECORDS_MAX, DnsUnavailable, NoRecords, NoSuchName, Resolver
from mailserver.dns.sender import sender_domain

LABEL = "a-label-nearly-as-long-as-labels-may-be-to-fill-the-space"
BIG = [(n, f"mx{n:02}-{LABEL}.x{n:02}-{LABEL}.y{n:02}-{LABEL}.t{n:02}.test") for n in range(45)]

ZONE: dict[str, Any] = {
    "a.test": {"MX": [(10, "mx1.a.test"), (20, "MX2.a.test.")]},
    "mx1.a.test": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]},
    "mx2.a.test": {"A": ["192.0.2.2", "192.0.2.3"]},
    "null.test": {"MX": [(0, ".")]},
    "nothing.test": {},
    "alias.test": {"CNAME": "mx1.a.test"},
    "dangling.test": {"CNAME": "nothing.test"},
    "sick.test": "SERVFAIL",
    "silent.test": "TIMEOUT",
    "half.test": {"A": ["192.0.2.4"], "AAAA": "SERVFAIL"},
    "half-sick.test": {"AAAA": "SERVFAIL"},
    "big.test": {"MX": BIG},
    "only-a.test": {"A": ["192.0.2.9"]},
}


@pytest.fixture(params=["dict", "real"])
async def resolver(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    if request.param == "dict":
        yield DictResolver(ZONE)
        return
    async with ZoneServer(ZONE) as server:
        real = Resolver([server.address], timeout=0.6)
        yield real
        await real.close()


async def test_exchangers_come_with_their_preference(resolver: Any) -> None:
    assert sorted(await resolver.mx("a.test")) == [MX(10, "mx1.a.test"), MX(20, "mx2.a.test")]
    assert sorted(await resolver.mx("A.Test.")) == [MX(10, "mx1.a.test"), MX(20, "mx2.a.test")]


async def test_addresses_of_both_families_ipv6_first(resolver: Any) -> None:
    assert await resolver.addresses("mx1.a.test") == ("2001:db8::1", "192.0.2.1")
    assert set(await resolver.addresses("mx2.a.test")) == {"192.0.2.2", "192.0.2.3"}
    assert await resolver.addresses("alias.test") == ("2001:db8::1", "192.0.2.1")
    assert await resolver.addresses("half.test") == ("192.0.2.4",)
    assert await resolver.addresses("localhost") == ("127.0.0.1", "::1")


async def test_null_mx_is_a_dot(resolver: Any) -> None:
    assert await resolver.mx("null.test") == (MX(0, "."),)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("missing.test", NoSuchName),
        ("nothing.test", NoRecords),
        ("dangling.test", NoRecords),
        ("alias.test", NoRecords),
        ("sick.test", DnsUnavailable),
        ("silent.test", DnsUnavailable),
    ],
)
async def test_why_there_are_no_exchangers(resolver: Any, name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await resolver.mx(name)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("missing.test", NoSuchName),
        ("nothing.test", NoRecords),
        ("a.test", NoRecords),
        ("sick.test", DnsUnavailable),
        ("half-sick.test", DnsUnavailable),
    ],
)
async def test_why_there_are_no_addresses(resolver: Any, name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await resolver.addresses(name)


async def test_nine_kilobytes_of_exchangers(resolver: Any) -> None:
    assert sorted(await resolver.mx("big.test")) == sorted(MX(p, h) for p, h in BIG)


@pytest.mark.parametrize(
    ("domain", "reply"),
    [
        ("a.test", "250 2.1.0"),
        ("only-a.test", "250 2.1.0"),
        ("[192.0.2.1]", "250 2.1.0"),
        ("missing.test", "550 5.1.8"),
        ("nothing.test", "550 5.1.8"),
        ("null.test", "550 5.7.27"),  # RFC 7505 4.2
        ("sick.test", "451 4.1.8"),
    ],
)
async def test_sender_domain(resolver: Any, domain: str, reply: str) -> None:
    assert (await sender_domain(resolver, domain)).text.startswith(f"{reply} ")


# ---- what only the real one has: TCP, cache, coalescing, rebuilding ---------------------------------
async def test_truncated_answers_come_by_tcp() -> None:
    async with ZoneServer(ZONE) as server:
        resolver = Resolver([server.address], timeout=2)
        await resolver.mx("big.test")
        assert {transport for transport, *_ in server.queries} == {"udp", "tcp"}
        await resolver.close()


async def test_answers_are_asked_for_once_and_again_when_old() -> None:
    now = 1000.0
    async with ZoneServer(ZONE, ttl=0) as server:  # with TTL 0, c-ares' own cache does not hide anything
        server.zone = dict(ZONE)
        resolver = Resolver([server.address], timeout=2, clock=lambda: now)
        answers = await asyncio.gather(*(resolver.mx("a.test") for _ in range(50)))
        assert len(server.queries) == 1
        assert len(set(answers)) == 1
        await resolver.mx("a.test")
        assert len(server.queries) == 2  # TTL 0 is not kept
        for _ in range(2):
            with pytest.raises(NoSuchName):
                await resolver.mx("missing.test")
        assert len(server.queries) == 3  # a negative answer is
        server.zone["missing.test"] = {"MX": [(1, "new.test")]}
        now += 61
        assert await resolver.mx("missing.test") == (MX(1, "new.test"),)
        await resolver.close()


async def test_positive_answers_live_as_long_as_their_ttl() -> None:
    now = 0.0
    async with ZoneServer({"a.test": {"A": ["192.0.2.1"]}}, ttl=86400) as server:
        resolver = Resolver([server.address], timeout=2, clock=lambda: now)
        assert await resolver.addresses("a.test") == ("192.0.2.1",)
        server.zone = {"a.test": {"A": ["192.0.2.2"]}}
        now = 59.0
        assert await resolver.addresses("a.test") == ("192.0.2.1",)
        now = 3601.0  # at most an hour
        resolver._drop_channel()  # and c-ares' own cache with its channel
        assert await resolver.addresses("a.test") == ("192.0.2.2",)
        await resolver.close()


async def test_one_asker_giving_up_does_not_cheat_the_others() -> None:
    async with ZoneServer(ZONE) as server:
        resolver = Resolver([server.address], timeout=2)
        first = asyncio.create_task(resolver.mx("a.test"))
        second = asyncio.create_task(resolver.mx("a.test"))
        await asyncio.sleep(0)
        first.cancel()
        assert len(await second) == 2
        await resolver.close()


async def test_a_fresh_channel_after_a_row_of_timeouts() -> None:
    async with ZoneServer({f"{n}.test": "TIMEOUT" for n in range(5)}) as server:
        resolver = Resolver([server.address], timeout=0.15)
        channels = set()
        for n in range(5):
            with pytest.raises(DnsUnavailable):
                await resolver.mx(f"{n}.test")
            channels.add(resolver._channel)
        assert None in channels  # dropped, to be opened anew by the next question
        server.zone = ZONE
        assert await resolver.mx("a.test")
        await resolver.close()


async def test_of_a_huge_answer_the_best_exchangers_count() -> None:
    many = [(n * 7 % 1000, f"mx{n}.test") for n in range(1000)]
    addresses = [f"192.0.{n // 250}.{n % 250}" for n in range(1000)]
    async with ZoneServer({"a.test": {"MX": many, "A": addresses}}) as server:
        resolver = Resolver([server.address], timeout=5)
        assert sorted(await resolver.mx("a.test")) == sorted(MX(p, h) for p, h in many)[:RECORDS_MAX]
        assert set(await resolver.addresses("a.test")) < set(addresses)
        assert len(await resolver.addresses("a.test")) == RECORDS_MAX
        await resolver.close()


async def test_a_channel_that_may_have_kept_too_much_is_replaced_when_all_have_their_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mailserver.dns.resolver.CHANNEL_RECORDS", 40)
    async with ZoneServer(ZONE | {"late.test": "TIMEOUT"}) as server:
        resolver = Resolver([server.address], timeout=1.5)
        late = asyncio.create_task(resolver.mx("late.test"))
        await server.asked.wait()
        await resolver.mx("a.test")
        first = weakref.ref(resolver._channel)
        for n in range(10):  # these count, too
            with pytest.raises(NoSuchName):
                await resolver.mx(f"missing-{n}.test")
        assert first() is not None
        assert resolver._channel is not first()
        server.zone = ZONE | {"late.test": {"MX": [(1, "mx.test")]}}
        assert await late == (MX(1, "mx.test"),)  # c-ares' second try
        del late
        gc.collect()
        assert first() is None
        await resolver.close()


async def test_closing_answers_whoever_still_waits() -> None:
    async with ZoneServer({"a.test": "TIMEOUT"}) as server:
        resolver = Resolver([server.address], timeout=30)
        asking = asyncio.create_task(resolver.mx("a.test"))
        await server.asked.wait()
        await resolver.close()
        with pytest.raises(DnsUnavailable):
            await asking
        with pytest.raises(DnsUnavailable):
            await resolver.mx("b.test")
        await resolver.close()


async def test_only_a_labels() -> None:
    with pytest.raises(ValueError, match="A-labels"):
        await Resolver().mx("bücher.test")


def test_hosts_file(tmp_path: Any) -> None:
    path = tmp_path / "hosts"
    hosts = HostsFile(str(path))
    assert hosts.addresses("relay") == ()
    path.write_text(
        "127.0.0.1 localhost # loopback\n\nnonsense relay\n10.0.0.7\trelay Relay.Example.\n::1 localhost\n"
    )
    assert hosts.addresses("RELAY") == ("10.0.0.7",)
    assert hosts.addresses("localhost") == ("127.0.0.1", "::1")
