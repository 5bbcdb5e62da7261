"""Clients behind proxies and behind a gateway: who is who, and who may relay."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from receive_desk import Desk, Tape

from mailserver.policy.open_relay import OpenRelayGuard
from mailserver.policy.relay import RelayTable

EHLO = b"EHLO client.test\r\n"
OUTSIDE = b"MAIL FROM:<a@b.test>\r\n", b"RCPT TO:<x@remote.test>\r\n"


async def test_the_client_is_whom_the_proxy_names(tmp_path: Path) -> None:
    desk = await Desk(tmp_path, relay="relay", proxy={"trusted": ["127.0.0.1"]}).open()
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n"
    answer = await desk.converse(header, EHLO, *OUTSIDE, b"QUIT\r\n")
    assert b"AUTH" not in answer  # no loopback any more
    assert b"550 5.7.1" in answer  # nor its right to relay
    opened = next(event for event in desk.events if type(event).__name__ == "SessionOpened")
    assert (opened.client, opened.port) == ("192.0.2.7", 4711)
    await desk.close()


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"])
async def test_a_proxy_without_a_client_has_no_rights(tmp_path: Path, header: bytes) -> None:
    desk = await Desk(tmp_path, relay="relay", proxy={"trusted": ["127.0.0.1"]}).open()
    answer = await desk.converse(header, EHLO, *OUTSIDE, b"QUIT\r\n")
    assert b"AUTH" not in answer
    assert b"550 5.7.1" in answer
    await desk.close()


async def test_a_proxy_must_send_its_header(tmp_path: Path) -> None:
    desk = await Desk(tmp_path, proxy={"trusted": ["127.0.0.1"]}).open()
    with contextlib.suppress(ConnectionResetError):
        assert await desk.talk(EHLO) == b""
    assert desk.kinds() == ["SessionRefused"]
    await desk.close()


async def test_a_header_from_others_is_a_wrong_command(tmp_path: Path) -> None:
    desk = await Desk(tmp_path, proxy={"trusted": ["192.0.2.9"]}).open()
    answer = await desk.talk(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\nQUIT\r\n")
    assert answer.split(b"\r\n")[1].startswith(b"500 ")
    assert desk.events[0].client == "127.0.0.1"  # type: ignore[attr-defined]  # a SessionOpened
    await desk.close()


async def test_a_gateway_that_everybody_comes_from_may_not_relay(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    table = RelayTable.compile([("10.0.0.0/8", "relay", "test rule")])
    desk.service._relay = lambda: table
    desk.service.gateway = OpenRelayGuard(["10.0.0.1"])
    last = b""
    for n in range(25):
        tape = Tape("10.0.0.1")
        listener = desk.service.new_listener()
        listener.connection_made(tape)
        listener.data_received(b"EHLO host%d.example\r\n" % n + b"".join(OUTSIDE))
        last = bytes(tape.written)
        listener.connection_lost(None)
        assert (b"250 2.1.5" in last) == (n < 18)  # the first connection counts as two
    assert b"550 5.7.1 Relaying denied: your address may be everybody's" in last
    assert desk.kinds().count("Problem") == 1
