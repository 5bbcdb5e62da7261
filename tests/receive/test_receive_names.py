"""What a client calls itself, and mail to the listener's own address."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from receive_desk import Desk

from mailserver.receive.naming import is_among, names_of_ours

STRANGERS: dict[str, Any] = {"guard": {"trusted": []}}  # loopback is one of our own networks otherwise
STRANGER, HERE = "127.0.0.2", "127.0.0.1"


async def answers(desk: Desk, said: list[bytes], address: str) -> list[bytes]:
    """The last line of the reply to each command."""
    reader, writer = await asyncio.open_connection(HERE, desk.port, local_addr=(address, 0))
    await reader.readline()
    last = []
    for command in said:
        writer.write(command + b"\r\n")
        while (line := await reader.readline())[3:4] == b"-":
            pass
        last.append(line)
    writer.close()
    await writer.wait_closed()
    return last


@pytest.mark.parametrize("name", [b"mx.example.test", b"MX.Example.TEST."])
@pytest.mark.parametrize("verb", [b"EHLO", b"HELO"])
async def test_a_stranger_has_no_name_of_ours(verb: bytes, name: bytes, tmp_path: Path) -> None:
    desk = await Desk(tmp_path, **STRANGERS).open()
    ours, then, other = await answers(
        desk, [verb + b" " + name, b"MAIL FROM:<a@b.test>", verb + b" mx.other.test"], STRANGER
    )
    assert (ours[:9], then[:3], other[:3]) == (b"550 5.7.1", b"503", b"250")
    await desk.close()


@pytest.mark.parametrize(
    ("service", "settings", "address"),
    [
        ("smtp", STRANGERS, HERE),  # this very machine
        ("smtp", {}, STRANGER),  # one of our networks
        ("smtp", STRANGERS | {"smtp": {"refuse_our_name": False}}, STRANGER),
        ("submission", STRANGERS, STRANGER),
    ],
)
async def test_who_may_bear_our_name(
    service: str, settings: dict[str, Any], address: str, tmp_path: Path
) -> None:
    desk = await Desk(tmp_path, name=service, **settings).open()
    assert (await answers(desk, [b"EHLO mx.example.test"], address))[0].startswith(b"250")
    await desk.close()


async def test_the_address_connected_to_is_a_name_of_ours_unless_it_is_everybodys(tmp_path: Path) -> None:
    assert names_of_ours("MX.test", "192.0.2.1") == {"mx.test", "[192.0.2.1]"}
    assert names_of_ours("mx.test", "2001:db8::1") == {"mx.test", "[ipv6:2001:db8::1]"}
    assert names_of_ours("mx.test", "::1") == names_of_ours("mx.test", "") == {"mx.test"}
    desk = await Desk(tmp_path, **STRANGERS).open()
    assert (await answers(desk, [b"EHLO [127.0.0.1]"], STRANGER))[0].startswith(b"250")
    await desk.close()


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("[IPv6:2001:db8::1]", True),
        ("[ipv6:2001:0DB8:0:0:0:0:0:1]", True),
        ("[IPv6:2001:db8::2]", False),
        ("[IPv6:2001:db8::1x", False),
        ("[IPv6:]", False),
        ("[IPv6:", False),
        ("[2001:db8::1]", False),  # no literal of RFC 5321 4.1.3
    ],
)
def test_an_ipv6_address_is_ours_in_each_of_its_spellings(name: str, ours: bool) -> None:
    assert is_among(names_of_ours("mx.test", "2001:db8::1"), name) is ours
    assert not is_among(names_of_ours("mx.test", "192.0.2.1"), name)


@pytest.mark.parametrize(
    "name", ["[192.0.2.1]", "[IPv6:::ffff:192.0.2.1]", "[IPv6:0:0:0:0:0:FFFF:C000:201]."]
)
def test_an_ipv4_address_is_ours_as_an_ipv6_one_too(name: str) -> None:
    assert is_among(names_of_ours("mx.test", "192.0.2.1"), name)
    assert not is_among(names_of_ours("mx.test", "192.0.2.2"), name)


async def test_mail_to_the_listeners_own_address_is_ours(tmp_path: Path) -> None:
    """RFC 1123 section 5.2.17; no other address is."""
    desk = await Desk(tmp_path).open()
    said = [b"EHLO c.test", b"MAIL FROM:<a@b.test>"]
    said += [b"RCPT TO:<%b>" % to for to in (b"Postmaster@[127.0.0.1]", b"bob@[127.0.0.1]")]
    said += [b"RCPT TO:<%b>" % to for to in (b"nobody@[127.0.0.1]", b"bob@[127.0.0.2]")]
    codes = [answer[:3] for answer in await answers(desk, said, STRANGER)]
    assert codes == [b"250", b"250", b"250", b"250", b"550", b"550"]
    await desk.close()
