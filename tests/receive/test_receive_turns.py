"""Clients that do not wait for their turn, and clients that take too long over it."""

# ruff: noqa: ASYNC110 - waits for what other code does, with nothing to subscribe to

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from receive_desk import Desk, Tape, feed

from mailserver.events import CommandRefused, SessionClosed
from mailserver.receive.server import REVIEW_INTERVAL
from mailserver.receive.wire import Wire

STRANGERS = {"guard": {"trusted": []}}  # loopback is one of our own networks otherwise
STRANGER = "127.0.0.2"  # and a client with the listener's own address is this machine
EHLO, MAIL, RCPT = b"EHLO c.test\r\n", b"MAIL FROM:<a@b.test>\r\n", b"RCPT TO:<alice@example.test>\r\n"
EARLY = b"554 5.5.1 Protocol error"
UNKNOWN_PROXY = b"PROXY UNKNOWN\r\n"


def already_there(desk: Desk, said: bytes, address: str = STRANGER) -> socket.socket:
    """A client whose words are in the kernel before the server has accepted it."""
    client = socket.create_connection(("127.0.0.1", desk.port), timeout=10, source_address=(address, 0))
    client.sendall(said)
    return client


async def answered(client: socket.socket) -> bytes:
    """One reading; a reset may follow, as what was said is not read."""
    with client:
        return await asyncio.to_thread(client.recv, 1000)


@pytest.mark.parametrize(
    ("name", "settings", "greeting"),
    [
        ("smtp", STRANGERS, EARLY),
        ("smtp", STRANGERS | {"smtp": {"greeting_delay": "20ms"}}, EARLY),
        ("smtp", STRANGERS | {"proxy": {"trusted": ["192.0.2.1"]}}, EARLY),
        ("smtp", {"smtp": {"greeting_delay": "1h"}}, b"220 "),  # our own networks
        ("smtp", STRANGERS | {"smtp": {"refuse_early_talkers": False, "greeting_delay": "1h"}}, b"220 "),
        ("submission", STRANGERS | {"smtp": {"greeting_delay": "1h"}}, b"220 "),
        ("lmtp", STRANGERS | {"smtp": {"greeting_delay": "1h"}}, b"220 "),
    ],
)
async def test_who_speaks_before_the_greeting(
    name: str, settings: dict[str, Any], greeting: bytes, tmp_path: Path
) -> None:
    desk = await Desk(tmp_path, name=name, **settings).open()
    answer = await answered(already_there(desk, b"QUIT\r\n"))
    assert answer.startswith(greeting)
    while "SessionClosed" not in desk.kinds():
        await asyncio.sleep(0)
    (closed,) = [event for event in desk.events if isinstance(event, SessionClosed)]
    assert closed.client == STRANGER
    refused = [event.rule for event in desk.events if isinstance(event, CommandRefused)]
    early = greeting == EARLY
    assert (closed.reason, refused) == (("early", ["smtp.refuse_early_talkers"]) if early else ("quit", []))
    await desk.close()


async def test_this_machine_and_whom_a_rule_lets_relay_may_be_careless(tmp_path: Path) -> None:
    desk = await Desk(tmp_path, smtp={"greeting_delay": "1h"}, **STRANGERS).open()
    assert (await answered(already_there(desk, b"QUIT\r\n", "127.0.0.1"))).startswith(b"220 ")
    await desk.close()
    desk = Desk(tmp_path, smtp={"greeting_delay": "1h"}, relay="relay", **STRANGERS)
    answer, _ = await feed(desk.service, [EHLO + b"QUIT\r\n"])
    assert answer.endswith(b"221 2.0.0 Bye\r\n")


@pytest.mark.parametrize(
    ("header", "greeting"),
    [(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n", EARLY), (UNKNOWN_PROXY, b"220 ")],
)
async def test_behind_a_proxy_the_client_is_judged_and_the_proxys_own_probe_is_not(
    header: bytes, greeting: bytes, tmp_path: Path
) -> None:
    desk = await Desk(tmp_path, proxy={"trusted": ["127.0.0.1"]}).open()
    assert (await answered(already_there(desk, header + b"QUIT\r\n", "127.0.0.1"))).startswith(greeting)
    await desk.close()


async def test_a_pause_before_the_greeting(tmp_path: Path) -> None:
    desk = await Desk(tmp_path, smtp={"greeting_delay": "300ms"}, **STRANGERS).open()
    loop = asyncio.get_running_loop()
    began = loop.time()
    _, gone = await desk.connect(STRANGER)
    gone.transport.abort()  # a client that does not wait at all
    patient = asyncio.create_task(desk.converse(b"", EHLO, b"QUIT\r\n", client=STRANGER))
    reader, writer = await desk.connect(STRANGER)
    writer.write(b"E")  # one octet is enough, and it is told at once
    assert (await reader.read()).startswith(EARLY)
    assert loop.time() - began < 0.3
    writer.close()
    answer = await patient
    assert answer.startswith(b"220 ") and answer.endswith(b"221 2.0.0 Bye\r\n")
    assert loop.time() - began >= 0.3
    assert "Problem" not in desk.kinds()
    await desk.close()


@pytest.mark.parametrize(
    ("pieces", "refused"),
    [
        ([EHLO + b"Q"], True),
        ([b"HELO c.test\r\nMAIL FROM:<a@b.test>\r\n"], True),
        ([b"EH", b"LO c.test\r\nMAIL FROM:<a@b.test>\r\n"], True),
        ([b"NOOP\r\n", EHLO + MAIL], True),
        ([b"GET / HTTP/1.1\r\nHost: x\r\n"], True),
        ([EHLO, MAIL + RCPT + b"DATA\r\n"], False),  # RFC 2920 3.1
        ([b"EH", b"LO c.test\r\n", MAIL + RCPT], False),
    ],
)
async def test_nothing_may_follow_the_first_command_before_its_answer(
    pieces: list[bytes], refused: bool, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, **STRANGERS)
    answer, tape = await feed(desk.service, pieces)
    assert tape.closed == refused
    assert answer.split(b"\r\n")[-2].startswith(EARLY) == refused


async def test_what_waits_in_the_kernel_behind_the_first_command_counts_too(tmp_path: Path) -> None:
    desk = await Desk(tmp_path, **STRANGERS).open()
    reader, writer = await desk.connect(STRANGER)
    assert (await reader.readline()).startswith(b"220 ")
    (session,) = desk.service._sessions
    ours, theirs = socket.socketpair()
    with ours, theirs:
        session.transport = Tape("192.0.2.1")
        session.transport._extra["socket"] = ours
        theirs.sendall(MAIL)
        session.data_received(EHLO)
        assert bytes(session.transport.written).startswith(EARLY)
    session.connection_lost(None)
    writer.close()
    await desk.close()


# ---- time --------------------------------------------------------------------------------------
def connected(desk: Desk, *said: bytes) -> tuple[Wire, Tape]:
    tape, listener = Tape(), desk.service.new_listener()
    listener.connection_made(tape)
    for piece in said:
        listener.data_received(piece)
    return listener, tape


def last(tape: Tape) -> bytes:
    return bytes(tape.written).split(b"\r\n")[-2]


@pytest.mark.parametrize("begin", [b"DATA\r\n", b"BDAT 1000000 LAST\r\n"])
async def test_a_trickle_of_content_prolongs_nothing(begin: bytes, tmp_path: Path) -> None:
    desk = Desk(tmp_path, limits={"data_timeout": 180, "minimum_rate": 500})
    start = desk.service.clock
    slow, slow_tape = connected(desk, EHLO + MAIL + RCPT + begin)
    steady, steady_tape = connected(desk, EHLO + MAIL + RCPT + begin)
    for seconds in range(60, 1000, 60):  # 500 octets a second: 90,000 in 180 seconds
        desk.service.sweep(start + seconds)
        if not slow_tape.closed:
            slow.data_received(b"x")
        if not steady_tape.closed:
            steady.data_received(b"y" * 30_000)
        assert slow_tape.closed == (seconds > 180)
    assert last(slow_tape) == b"421 4.4.2 The message comes too slowly, closing"
    assert not steady_tape.closed
    desk.service.sweep(start + 960 + 182)  # silence ends it as ever
    assert steady_tape.closed


async def test_each_message_has_its_own_time(tmp_path: Path) -> None:
    desk = Desk(tmp_path, limits={"data_timeout": 180, "minimum_rate": 500})
    start = desk.service.clock
    session, tape = connected(desk, EHLO + MAIL + RCPT + b"DATA\r\nx")
    desk.service.sweep(start + 170)
    session.data_received(b"\r\n.\r\n")
    session.data_received(MAIL + RCPT + b"DATA\r\n")
    session.data_received(b"y")
    desk.service.sweep(start + 340)
    assert not tape.closed
    desk.service.sweep(start + 352)
    assert tape.closed


async def test_the_octets_of_a_command_do_not_prolong_its_time(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    start = desk.service.clock
    clients = [connected(desk), connected(desk, EHLO, b"AUTH LOGIN\r\n")]
    while not bytes(clients[1][1].written).endswith(b"334 VXNlcm5hbWU6\r\n"):
        await asyncio.sleep(0)
    for seconds in range(50, 300, 50):
        desk.service.sweep(start + seconds)
        for session, _ in clients:
            session.data_received(b"x" * 3000)
    desk.service.sweep(start + 302)  # RFC 5321 4.5.3.2.7: five minutes
    assert [last(tape) for _, tape in clients] == [b"421 4.4.2 Silent for too long, closing"] * 2


async def test_commands_that_lead_nowhere_end_too(tmp_path: Path) -> None:
    desk = Desk(tmp_path, limits={"session_timeout": 1800})
    start, content = desk.service.clock, b"DATA\r\nx\r\n.\r\n"
    idler, idle_tape = connected(desk, EHLO)
    drip, drip_tape = connected(desk, EHLO + MAIL + RCPT)
    sender, sender_tape = connected(desk, EHLO)
    for seconds in range(0, 4000, 200):
        desk.service.sweep(start + seconds)
        if not idle_tape.closed:
            idler.data_received(b"NOOP\r\n")
        if not drip_tape.closed:
            drip.data_received(b"BDAT 1\r\nx")
        sender.data_received(MAIL + RCPT + content if seconds % 1600 == 0 else b"NOOP\r\n")
        late = seconds > 1800 + REVIEW_INTERVAL + 200
        assert idle_tape.closed >= late and drip_tape.closed >= late
    assert {last(idle_tape), last(drip_tape)} == {b"421 4.4.2 No message for too long, closing"}
    assert not sender_tape.closed
    reasons = [event.reason for event in desk.events if isinstance(event, SessionClosed)]
    assert reasons == []  # told, and waited for
    for session in (idler, drip, sender):
        session.connection_lost(None)
    reasons = [event.reason for event in desk.events if isinstance(event, SessionClosed)]
    assert reasons == ["no progress", "no progress", "lost"]


@pytest.mark.parametrize("implicit", [True, False])
async def test_a_handshake_must_be_quick(implicit: bool, tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    desk = Desk(tmp_path, name="submission", tls=context, limits={"handshake_timeout": "200ms"})
    await desk.open(tls=implicit)
    reader, writer = await desk.connect()
    if not implicit:
        writer.write(b"STARTTLS\r\n")
        assert (await reader.readuntil(b"TLS\r\n")).startswith(b"220 ")
    began = asyncio.get_running_loop().time()
    writer.write(b"\x16\x03\x01")  # the beginning of a ClientHello, and no more
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    assert asyncio.get_running_loop().time() - began < 5
    writer.close()
    await desk.close()
