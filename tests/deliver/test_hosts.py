"""Which hosts are tried, in which order, and when not to try at all (RFC 5321 5.1, RFC 7505)."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from peer import DROP, Peer
from sending import sender
from zones import DictResolver

from mailserver.deliver.mx import MAX_ADDRESSES, Finder
from mailserver.deliver.route import Destination, parse
from mailserver.dns.hosts import HostsFile
from mailserver.message.envelope import Deferred, Delivered, Failed


def finder(
    zone: dict[str, Any], own: Callable[[str, int], bool] = lambda a, p: False, seed: int = 1
) -> Finder:
    hosts = HostsFile("/nowhere")
    return Finder(DictResolver(zone), "mail.here.test", own, hosts=hosts, rng=random.Random(seed))  # type: ignore[arg-type]


def mx(*records: tuple[int, str]) -> dict[str, Any]:
    """A zone in which every host n.test has the address 192.0.2.n."""
    zone: dict[str, Any] = {f"{n}.test": {"A": [f"192.0.2.{n}"]} for n in range(1, 30)}
    return zone | {"a.test": {"MX": list(records)}}


async def found(finder: Finder, destination: str = "a.test") -> Any:
    result = await finder.hosts(parse(destination))
    return (
        [h.address for h in result]
        if isinstance(result, list)
        else (type(result), getattr(result, "status", ""))
    )


async def test_better_preferences_come_first_and_equals_in_any_order() -> None:
    zone = mx((20, "3.test"), (10, "1.test"), (10, "2.test"))
    orders = {tuple(await found(finder(zone, seed=seed))) for seed in range(20)}
    assert orders == {("192.0.2.1", "192.0.2.2", "192.0.2.3"), ("192.0.2.2", "192.0.2.1", "192.0.2.3")}


async def test_without_mx_the_domain_itself() -> None:
    assert await found(finder({"a.test": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]}})) == [
        "2001:db8::1",
        "192.0.2.1",
    ]


async def test_the_families_take_turns_and_the_number_is_bounded() -> None:
    six, four = [f"2001:db8::{n}" for n in range(20)], [f"192.0.2.{n}" for n in range(20)]
    tried = await found(finder({"a.test": {"A": four, "AAAA": six}}))
    assert tried[:4] == [six[0], four[0], six[1], four[1]]
    assert len(tried) == MAX_ADDRESSES
    assert len(await found(finder(mx(*((n, f"{n}.test") for n in range(1, 30)))))) == MAX_ADDRESSES


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ({}, (Failed, "5.1.2")),
        ({"a.test": {}}, (Failed, "5.1.2")),
        ({"a.test": "SERVFAIL"}, (Deferred, "4.4.3")),
        ({"a.test": {"AAAA": "SERVFAIL"}}, (Deferred, "4.4.3")),
        ({"a.test": {"MX": [(0, ".")]}}, (Failed, "5.1.10")),
        ({"a.test": {"MX": [(0, "."), (10, "b.test")]}, "b.test": {"A": ["192.0.2.1"]}}, ["192.0.2.1"]),
        ({"a.test": {"MX": [(0, "b.test"), (1, "c.test")]}, "c.test": {}}, (Failed, "5.4.4")),
        ({"a.test": {"MX": [(0, "b.test"), (1, "c.test")]}, "c.test": "SERVFAIL"}, (Deferred, "4.4.3")),
        (
            {
                "a.test": {"MX": [(0, "b.test"), (1, "c.test")]},
                "b.test": "SERVFAIL",
                "c.test": {"A": ["192.0.2.1"]},
            },
            ["192.0.2.1"],
        ),
    ],
)
async def test_what_dns_says(zone: dict[str, Any], expected: Any) -> None:
    assert await found(finder(zone)) == expected


@pytest.mark.parametrize(
    ("records", "own", "expected"),
    [
        # by name: the same and worse preferences are dropped, better ones stay
        ([(10, "1.test"), (20, "mail.here.test"), (20, "2.test"), (30, "3.test")], "", ["192.0.2.1"]),
        ([(10, "MAIL.here.test"), (20, "2.test")], "", (Failed, "5.4.6")),
        # by address
        ([(10, "1.test"), (20, "2.test"), (20, "3.test"), (30, "4.test")], "192.0.2.3", ["192.0.2.1"]),
        ([(10, "1.test"), (10, "2.test")], "192.0.2.2", (Failed, "5.4.6")),
        # the better host may be there when DNS is well again
        ([(5, "sick.test"), (10, "1.test")], "192.0.2.1", (Deferred, "4.4.3")),
    ],
)
async def test_loops_to_ourselves(records: list[tuple[int, str]], own: str, expected: Any) -> None:
    zone = mx(*records) | {"sick.test": "SERVFAIL"}
    assert await found(finder(zone, lambda address, port: (address, port) == (own, 25))) == expected


async def test_implicit_mx_and_routes_may_loop_too() -> None:
    """A slip of the administrator's in [routes] sends nothing back to anybody."""
    zone = {"a.test": {"A": ["192.0.2.1"]}}
    assert await found(finder(zone, lambda a, p: a == "192.0.2.1")) == (Failed, "5.4.6")
    own_relay = finder({}, lambda a, p: (a, p) == ("192.0.2.1", 2525))
    assert await found(own_relay, "smtp://192.0.2.1:2525") == (Deferred, "4.4.6")
    assert await found(own_relay, "smtp://192.0.2.1:2526") == ["192.0.2.1"]
    own_mx = finder({}, lambda a, p: (a, p) == ("192.0.2.1", 25))
    assert await found(own_mx, "[192.0.2.1]") == (Failed, "5.4.6")


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("a.test", Destination("a.test", 25, by_mx=True)),
        ("[192.0.2.1]", Destination("192.0.2.1", 25)),
        ("[IPv6:2001:db8::1]", Destination("2001:db8::1", 25)),
        ("smtp://relay.test", Destination("relay.test", 25, by_route=True)),
        ("smtp://relay.test:587", Destination("relay.test", 587, by_route=True)),
        ("smtps://relay.test", Destination("relay.test", 465, protocol="smtps", by_route=True)),
        ("lmtp://[::1]", Destination("::1", 24, protocol="lmtp", by_route=True)),
        ("lmtp://127.0.0.1:2424", Destination("127.0.0.1", 2424, protocol="lmtp", by_route=True)),
    ],
)
def test_destinations(text: str, destination: Destination) -> None:
    assert parse(text) == destination


async def test_the_host_of_a_route(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("10.0.0.9 neighbour\n")
    it = finder({"relay.test": {"A": ["192.0.2.1"], "MX": [(1, "other.test")]}, "sick.test": "SERVFAIL"})
    it._hosts = HostsFile(str(tmp_path / "hosts"))
    assert await found(it, "smtp://relay.test") == ["192.0.2.1"]
    assert await found(it, "smtp://neighbour") == ["10.0.0.9"]
    assert await found(it, "lmtp://localhost") == ["::1", "127.0.0.1"]
    assert await found(it, "smtp://missing.test") == (
        Deferred,
        "4.4.4",
    )  # an administrator's slip bounces nothing
    assert await found(it, "smtp://sick.test") == (Deferred, "4.4.3")


# ---- going on to the next host, with real connections -----------------------------------------------
MX2: dict[str, Any] = {
    "a.test": {"MX": [(10, "one.test"), (20, "two.test")]},
    "one.test": {"A": ["127.0.0.2"]},
    "two.test": {"A": ["127.0.0.3"]},
}


async def two(stack: AsyncExitStack, first: dict[str, Any], second: dict[str, Any]) -> tuple[Peer, Peer]:
    one = await stack.enter_async_context(Peer(first, host="127.0.0.2"))
    return one, await stack.enter_async_context(Peer(second, host="127.0.0.3", port=one.port))


@pytest.mark.parametrize(
    "fault",
    [
        {"GREETING": "554 5.7.1 no"},
        {"GREETING": "421 later"},
        {"GREETING": DROP},
        {"EHLO": "421 later"},
        {"MAIL": DROP},
        {"RCPT": "421 later"},
        {"DATA": DROP},
        {".": "421 4.3.0 later"},
    ],
)
async def test_a_sick_host_makes_room_for_the_next(tmp_path: Path, fault: dict[str, Any]) -> None:
    async with AsyncExitStack() as stack:
        one, two_ = await two(stack, fault, {})
        our = await stack.enter_async_context(sender(tmp_path, MX2, port=one.port))
        (result,) = await our.send("a.test")
        assert type(result) is Delivered
        assert result.remote == f"two.test[127.0.0.3]:{one.port}"
        assert (len(one.messages) <= 1, len(two_.messages)) == (True, 1)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"MAIL": "550 5.7.1 no"}, Failed),
        ({"RCPT": "450 4.2.0 later"}, Deferred),
        ({"DATA": "451 later"}, Deferred),
        ({".": DROP}, Deferred),
    ],
)
async def test_an_answer_is_an_answer(tmp_path: Path, answer: dict[str, Any], kind: type) -> None:
    async with AsyncExitStack() as stack:
        one, two_ = await two(stack, answer, {})
        our = await stack.enter_async_context(sender(tmp_path, MX2, port=one.port))
        (result,) = await our.send("a.test")
        assert type(result) is kind
        assert two_.connections == 0


async def test_what_the_first_host_decided_stands(tmp_path: Path) -> None:
    answers = {"no@a.test": "550 5.1.1 no", "later@a.test": "450 4.2.0 later"}
    async with AsyncExitStack() as stack:
        one, two_ = await two(stack, {"RCPT": answers, "DATA": "421 sorry"}, {})
        our = await stack.enter_async_context(sender(tmp_path, MX2, port=one.port))
        results = await our.send("a.test", ["no@a.test", "yes@a.test", "later@a.test"])
        assert [type(r) for r in results] == [Failed, Delivered, Deferred]
        assert two_.messages[0].rcpts == ["RCPT TO:<yes@a.test>"]


async def test_an_address_where_nobody_listens(tmp_path: Path) -> None:
    zone = MX2 | {"one.test": {"A": ["127.0.0.4"], "AAAA": ["::1"]}}
    async with AsyncExitStack() as stack:
        _, two_ = await two(stack, {}, {})
        our = await stack.enter_async_context(sender(tmp_path, zone, port=two_.port))
        assert type((await our.send("a.test"))[0]) is Delivered
        assert len(two_.messages) == 1


async def test_when_nobody_is_well_the_last_word_counts(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        one, _ = await two(stack, {"GREETING": DROP}, {"GREETING": "554 5.3.2 closed"})
        our = await stack.enter_async_context(sender(tmp_path, MX2, port=one.port))
        (result,) = await our.send("a.test")
        assert (type(result), result.status, result.reply) == (Deferred, "4.3.2", "554 5.3.2 closed")


async def test_a_host_that_bears_our_name(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(Peer(name="mail.here.test", host="127.0.0.2"))
        zone = {"a.test": {"A": ["127.0.0.2"]}}
        our = await stack.enter_async_context(sender(tmp_path, zone, port=peer.port))
        (result,) = await our.send("a.test")
        assert (type(result), result.status) == (Deferred, "4.4.6")
        (result,) = await our.send(peer.route)  # the LMTP server of this machine has its name, rightly
        assert type(result) is Delivered
