"""The service as clients, disks and clocks treat it."""

# ruff: noqa: ASYNC110, ASYNC240 - waits for what other code does, with nothing to subscribe to

from __future__ import annotations

import asyncio
import email
import errno
import gc
import os
import resource
import smtplib
import ssl
import weakref
from email.message import EmailMessage
from pathlib import Path

import pytest
import trustme
from receive_desk import Desk, Tape, feed

from mailserver import reply
from mailserver.events import CommandRefused
from mailserver.receive.collector import Collector
from mailserver.receive.handler import Handler
from mailserver.receive.spill import MEMORY_MAX
from mailserver.reply import Reply

HELLO = b"EHLO c.test\r\n"
ENVELOPE = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<alice@example.test>\r\n"
START = HELLO + ENVELOPE + b"DATA\r\n"


def codes(answer: bytes) -> list[str]:
    """The last line of every reply, code and enhanced status."""
    return [line[:9].decode().strip() for line in answer.split(b"\r\n") if line[3:4] == b" "]


@pytest.fixture
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Server's and client's contexts."""
    ca, server, client = (
        trustme.CA(),
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(),
    )
    ca.issue_cert("127.0.0.1").configure_cert(server)
    ca.configure_trust(client)
    return server, client


async def test_smtplib_sends_with_starttls_and_login(
    tmp_path: Path, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    desk = await Desk(tmp_path, name="submission", tls=tls[0]).open()

    def send() -> None:
        with smtplib.SMTP("127.0.0.1", desk.port, timeout=10) as client:
            client.starttls(context=tls[1])
            client.login("alice@example.test", "wonder")
            message = EmailMessage()
            message["Subject"] = "hello"
            message.set_content("dots\n.\n..\nend")
            client.send_message(message, "alice@example.test", ["bob@example.test", "x@remote.test"])

    await asyncio.to_thread(send)
    ((envelope, data),) = desk.queue.messages
    assert envelope.account == "alice@example.test"
    assert [r.address for r in envelope.recipients] == ["bob@example.test", "x@remote.test"]
    assert b"with ESMTPSA id " + envelope.id.encode() in data
    assert desk.queue.content().endswith(b"\n\ndots\n.\n..\nend\n")
    assert "LoggedIn" in desk.kinds()
    await desk.close()


async def test_tls_from_the_first_octet(tmp_path: Path, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    desk = await Desk(tmp_path, name="submission", tls=tls[0]).open(tls=True)

    def hello() -> dict[str, str]:
        with smtplib.SMTP_SSL("127.0.0.1", desk.port, context=tls[1], timeout=10) as client:
            client.ehlo()
            return client.esmtp_features

    features = await asyncio.to_thread(hello)
    assert "auth" in features
    assert "starttls" not in features
    await desk.close()


async def test_what_is_pipelined_behind_starttls_is_not_obeyed(
    tmp_path: Path, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    desk = Desk(tmp_path, tls=tls[0])
    answer, tape = await feed(desk.service, [HELLO + b"STARTTLS\r\nMAIL FROM:<injected@b.test>\r\n"])
    assert codes(answer)[-1] == "503 5.5.1"
    assert tape.closed


async def test_no_password_without_tls_from_elsewhere(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    tape = Tape("192.0.2.1")
    listener = desk.service.new_listener()
    listener.connection_made(tape)
    listener.data_received(HELLO)
    listener.data_received(b"AUTH PLAIN AGEAYg==\r\n")
    assert b"AUTH PLAIN" not in tape.written
    assert tape.written.endswith(b"538 5.7.11 Encryption required for authentication\r\n")
    listener.connection_lost(None)


async def test_passwords_are_guessed_five_times_only(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    answer, tape = await feed(desk.service, [HELLO, *[b"AUTH PLAIN AGEAYg==\r\n"] * 6])
    assert codes(answer)[2:] == ["535 5.7.8"] * 4 + ["421 4.7.0"]
    assert tape.closed
    assert desk.kinds().count("LoginFailed") == 5


async def test_a_commit_survives_the_clients_disconnect(tmp_path: Path) -> None:
    desk = await Desk(tmp_path).open()
    desk.queue.held = []
    _, writer = await desk.connect()
    writer.write(START + b"hello\r\n.\r\n")
    while not desk.queue.held:
        await asyncio.sleep(0)
    writer.transport.abort()
    while "SessionClosed" not in desk.kinds():
        await asyncio.sleep(0)
    desk.queue.release()
    await asyncio.sleep(0)
    assert [e.sender for e, _ in desk.queue.messages] == ["a@b.test"]
    assert "Problem" not in desk.kinds()
    await desk.close()


async def test_what_follows_the_dot_waits_for_the_commit(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.queue.held = []
    tape = Tape()
    listener = desk.service.new_listener()
    listener.connection_made(tape)
    listener.data_received(START + b"hello\r\n.\r\nRSET\r\nQUIT\r\n")
    assert tape.written.endswith(b"354 End data with <CR><LF>.<CR><LF>\r\n")
    desk.queue.release()
    await asyncio.sleep(0)
    assert codes(bytes(tape.written))[-3:] == ["250 2.0.0", "250 2.0.0", "221 2.0.0"]
    assert tape.closed


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "full"), "452 4.3.1"),
        (OSError(errno.EDQUOT, "quota"), "452 4.3.1"),
        (OSError(errno.EMFILE, "descriptors"), "452 4.3.1"),
        (OSError(errno.EIO, "sick"), "451 4.3.0"),
        (ValueError("secret bug"), "451 4.3.0"),
    ],
)
async def test_our_faults_are_temporary_and_say_nothing(error: Exception, code: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.queue.error = error
    answer, _ = await feed(desk.service, [START + b"x\r\n.\r\nNOOP\r\n"])
    assert codes(answer)[-2:] == [code, "250 2.0.0"]
    assert b"secret" not in answer
    assert ("Problem" in desk.kinds()) == code.startswith("451")
    (refused,) = [event for event in desk.events if isinstance(event, CommandRefused)]
    assert (refused.rule == str(error)) == code.startswith("452")  # what is full: only the log says


async def test_a_bug_in_a_decision_costs_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path)
    monkeypatch.setattr(Handler, "handle_RCPT", lambda *_: 1 / 0)
    answer, _ = await feed(desk.service, [HELLO + ENVELOPE + b"NOOP\r\n"])
    assert codes(answer)[-2:] == ["451 4.3.0", "250 2.0.0"]
    assert "ZeroDivisionError" in next(e.trace for e in desk.events if type(e).__name__ == "Problem")  # type: ignore[attr-defined]


async def test_silence_is_ended_with_421(tmp_path: Path) -> None:
    desk = Desk(tmp_path, limits={"idle_timeout": 300, "data_timeout": 180})
    start = desk.service.clock
    tapes = []
    for said in (b"", HELLO, START, b"NO"):
        tape = Tape()
        listener = desk.service.new_listener()
        listener.connection_made(tape)
        if said:
            listener.data_received(said)
        tapes.append(tape)
    desk.service.sweep(start + 179)
    assert [t.closed for t in tapes] == [False] * 4
    desk.service.sweep(start + 182)
    assert [t.closed for t in tapes] == [False, False, True, False]
    desk.service.sweep(start + 300.9)  # it may have been said 0.9 s after ``start``
    assert [t.closed for t in tapes] == [False, False, True, False]
    desk.service.sweep(start + 302)
    assert [t.closed for t in tapes] == [True] * 4
    said = [bytes(t.written).split(b"\r\n")[-2] for t in tapes]
    silent, slow = (
        b"421 4.4.2 Silent for too long, closing",
        b"421 4.4.2 The message comes too slowly, closing",
    )
    assert said == [silent, silent, slow, silent]


async def test_connections_are_limited_in_all_and_per_address(tmp_path: Path) -> None:
    desk = Desk(tmp_path, limits={"connections": 3, "connections_per_address": 2})

    def come(client: str) -> Tape:
        tape = Tape(client)
        desk.service.new_listener().connection_made(tape)
        return tape

    greetings = [
        bytes(come(client).written[:9])
        for client in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3")
    ]
    assert greetings == [b"220 mx.ex", b"220 mx.ex", b"421 4.7.0", b"220 mx.ex", b"421 4.7.0"]
    assert desk.service.status()["connections"] == 3


async def test_no_limit_is_announced_that_has_more_than_six_digits(tmp_path: Path) -> None:
    """RFC 9422 4: a client may take a longer one for nonsense. The limit itself may be higher."""
    desk = await Desk(tmp_path, limits={"messages_per_session": 1_000_000, "recipients": 5_000_000}).open()
    assert b"LIMITS MAILMAX=999999 RCPTMAX=999999\r\n" in await desk.talk(b"EHLO client.test\r\nQUIT\r\n")
    await desk.close()


async def test_a_rejected_address_is_told_so_and_may_say_quit(tmp_path: Path) -> None:
    desk = await Desk(tmp_path, relay="reject", limits={"connections_per_address": 1}).open()
    reader, writer = await desk.connect()
    assert (await reader.readline()).startswith(b"554 5.7.1")
    assert (await desk.talk(b"")).startswith(b"421 4.7.0")  # it takes a place like everybody else
    writer.write(HELLO + b"MAIL FROM:<>\r\nSTARTTLS\r\nBDAT 6\r\nQUIT\r\nQUIT\r\n")
    assert codes(await reader.read()) == ["503 5.5.1"] * 4 + ["221 2.0.0"]  # RFC 5321 3.1
    writer.close()
    assert desk.kinds()[:3] == ["SessionRefused", "SessionOpened", "SessionRefused"]
    await desk.close()


async def test_limits_of_messages_recipients_errors_and_storage(tmp_path: Path) -> None:
    desk = Desk(tmp_path, limits={"recipients": 100, "errors": 3, "messages_per_session": 1})
    answer, _ = await feed(
        desk.service, [HELLO, b"MAIL FROM:<>\r\n", *[b"RCPT TO:<alice@example.test>\r\n"] * 101]
    )
    assert codes(answer)[-2:] == ["250 2.1.5", "452 4.5.3"]
    answer, tape = await feed(desk.service, [b"A\r\nB\r\nC\r\nNOOP\r\n"])
    assert codes(answer)[1:] == ["500 5.5.2"] * 3 + ["421 4.7.0"]
    assert tape.closed
    answer, tape = await feed(desk.service, [START, b".\r\n", ENVELOPE])
    assert codes(answer)[-1] == "421 4.7.0"
    desk.storage = False
    answer, _ = await feed(desk.service, [START])
    assert codes(answer)[2] == "452 4.3.1"


@pytest.mark.parametrize(
    ("known", "code"),
    [
        (reply.SENDER_OK, "250 2.1.0"),
        (reply.SENDER_DOMAIN_UNKNOWN, "550 5.1.8"),
        (reply.SENDER_DOMAIN_UNKNOWN_YET, "451 4.1.8"),
    ],
)
async def test_the_senders_domain_is_asked_for(known: Reply, code: str, tmp_path: Path) -> None:
    desk = await Desk(tmp_path, smtp={"check_sender_domain": True}).open()
    desk.sender_domain = known
    answer = await desk.talk(
        HELLO + b"MAIL FROM:<a@b.test>\r\nRSET\r\nMAIL FROM:<a@example.test>\r\nQUIT\r\n"
    )
    # Our own domains exist because we say so; that of a network inside may be in no DNS.
    assert codes(answer)[2:5] == [code, "250 2.0.0", "250 2.1.0"]
    await desk.close()


async def test_recipients_that_meet_get_one_copy_and_keep_their_dsn_wishes(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    said = (
        b"MAIL FROM:<a@b.test> RET=HDRS ENVID=QQ+2B\r\n"
        b"RCPT TO:<alice@example.test> NOTIFY=SUCCESS ORCPT=rfc822;A+2Bb@c.test\r\n"
        b"RCPT TO:<ALICE@example.test>\r\nRCPT TO:<team@example.test>\r\nDATA\r\n.\r\n"
    )
    await feed(desk.service, [HELLO, said])
    ((envelope, _),) = desk.queue.messages
    assert (envelope.ret, envelope.envid) == ("HDRS", "QQ+2B")
    assert [(r.address, r.notify, r.orcpt, r.alias) for r in envelope.recipients] == [
        ("alice@example.test", ("SUCCESS",), "rfc822;A+2Bb@c.test", None),
        ("bob@example.test", (), "rfc822;team@example.test", "team@example.test"),
        ("x@remote.test", (), "rfc822;team@example.test", "team@example.test"),
    ]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"Received: x\r\n" * 100 + b"\r\n", "250 2.0.0"),
        (b"Received: x\r\n" * 101 + b"\r\n", "554 5.4.6"),
        (b"Subject: x\r\n\r\n" + b"Received: x\r\n" * 101, "250 2.0.0"),
        (b"\r\nReceived: x\r\n" * 101, "250 2.0.0"),
        (b"Delivered-To: Alice@Example.test\r\n\r\n", "554 5.4.6"),
        (b"Delivered-To: bob@example.test\r\n\r\n", "250 2.0.0"),
        (b"\r\nDelivered-To: alice@example.test\r\n\r\n", "250 2.0.0"),
    ],
)
async def test_loops_end_here(content: bytes, code: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    answer, _ = await feed(desk.service, [START, content + b".\r\n"])
    assert codes(answer)[-1] == code


async def test_eight_bit_content_is_marked_and_a_helo_cannot_write_headers(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await feed(desk.service, [b'HELO x);"(evil\r\n' + ENVELOPE + b"DATA\r\n\xe9\r\n.\r\n"])
    envelope, data = desk.queue.messages[0]
    assert envelope.body == "8BITMIME"
    assert data.startswith(
        b"Return-Path: <a@b.test>\nDelivered-To: alice@example.test\nReceived: from x????evil ([127.0.0.1])\n"
    )


async def test_large_messages_go_through_a_file_and_too_large_ones_nowhere(tmp_path: Path) -> None:
    desk = await Desk(tmp_path, limits={"message_size": 8 << 20}).open()
    line = b"x" * 98 + b"\r\n"
    assert codes(await desk.talk(START + line * 30_000 + b".\r\nNOOP\r\n"))[-2:] == ["250 2.0.0", "250 2.0.0"]
    assert desk.queue.bodies[0].path is not None
    assert desk.queue.content() == (line * 30_000).replace(b"\r\n", b"\n")
    assert desk.queue.messages[0][0].size == len(desk.queue.messages[0][1])
    assert codes(await desk.talk(START + line * 90_000 + b".\r\nNOOP\r\n"))[-2:] == ["552 5.3.4", "250 2.0.0"]
    assert len(desk.queue.messages) == 1
    await desk.close()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert desk.service.budget.used == 0


async def test_a_dying_session_leaves_no_file(tmp_path: Path) -> None:
    desk = await Desk(tmp_path).open()
    _, writer = await desk.connect()
    writer.write(START + b"x" * (3 * MEMORY_MAX))
    await writer.drain()
    while not list(tmp_path.glob("tmp/*")):
        await asyncio.sleep(0.001)
    writer.transport.abort()
    while "SessionClosed" not in desk.kinds() or list(tmp_path.glob("tmp/*")):
        await asyncio.sleep(0.001)
    assert desk.service.budget.used == 0
    await desk.close()


async def test_a_full_disk_refuses_the_message_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "tmp").write_text("not a folder")
    desk = await Desk(tmp_path).open()
    answer = await desk.talk(START + b"x\r\n" * MEMORY_MAX + b".\r\nNOOP\r\n")
    assert codes(answer)[-2:] == ["451 4.3.0", "250 2.0.0"]
    await desk.close()


async def test_memory_for_all_bodies_is_shared(tmp_path: Path) -> None:
    desk = await Desk(tmp_path, limits={"body_memory": "256 KiB"}).open()
    message = START + b"y\r\n" * 100_000 + b".\r\nQUIT\r\n"
    answers = await asyncio.gather(*(desk.talk(message) for _ in range(20)))
    assert all(codes(a)[-2:] == ["250 2.0.0", "221 2.0.0"] for a in answers)
    assert len(desk.queue.messages) == 20
    assert desk.service.budget.used == 0
    await desk.close()


async def test_content_between_two_chunks_makes_room_for_the_mail_of_others(tmp_path: Path) -> None:
    desk = Desk(tmp_path, limits={"body_memory": 400_000})
    line, parked = b"x" * 78 + b"\r\n", []
    for lines in (4800, 180, 180):  # the last one is more than there is memory for
        listener, tape = desk.service.new_listener(), Tape()
        listener.connection_made(tape)
        listener.data_received(HELLO + ENVELOPE + b"BDAT %d\r\n" % (lines * 80) + line * lines)
        parked.append((listener, tape, lines))
    async with asyncio.timeout(10):
        answer, _ = await feed(desk.service, [START, b"small\r\n.\r\n"])
        assert codes(answer)[-1] == "250 2.0.0"
        for listener, tape, lines in parked:
            while tape.paused:
                await asyncio.sleep(0)
            listener.data_received(b"BDAT 3 LAST\r\ny\r\nQUIT\r\n")
            while not tape.closed:
                await asyncio.sleep(0)
            assert desk.queue.content() == (line * lines + b"y\r\n").replace(b"\r\n", b"\n")
            listener.connection_lost(None)
    assert desk.service.budget.used == 0


@pytest.mark.parametrize(
    "pieces",
    [
        [b"DATA\r\n", b"\r", b"\n.\r\n"],
        [b"DATA\r\n", b".", b"\r\n"],
        [b"DATA\r\n", b"one line\r\n", b"a\nb", b"\r\n.\r\n"],
        [b"DATA\r\n", b"x" * 40_000, b"x" * 40_000, b"\r\n.\r\n"],
        [b"BDAT 0\r\n", b"BDAT 3 LAST\r\na\r\n"],
        [b"BDAT 9\r\n", b"a\nb", b"123456", b"RSET\r\n"],
    ],
)
async def test_nobody_is_remembered_for_a_message_that_took_no_memory(
    pieces: list[bytes], tmp_path: Path
) -> None:
    desk = Desk(tmp_path, limits={"message_size": 65_536})
    listener, tape = desk.service.new_listener(), Tape()
    listener.connection_made(tape)
    for piece in [HELLO + ENVELOPE, *pieces, b"QUIT\r\n"]:
        listener.data_received(piece)
        await asyncio.sleep(0)
    assert codes(bytes(tape.written))[-1] == "221 2.0.0"
    assert desk.service.budget.used == 0
    listener.connection_lost(None)
    session = weakref.ref(listener)
    del listener
    gc.collect()
    assert session() is None


async def test_binary_content_becomes_text(tmp_path: Path) -> None:
    binary = bytes(range(256)) * 3
    content = (
        b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        + binary
        + b"\r\n--b--\r\n"
    )
    desk = await Desk(tmp_path).open()
    envelope = ENVELOPE.replace(b"b.test>\r\n", b"b.test> BODY=BINARYMIME\r\n", 1)
    said = HELLO + envelope + b"BDAT %d LAST\r\n" % len(content) + content + b"QUIT\r\n"
    assert codes(await desk.talk(said))[-2:] == ["250 2.0.0", "221 2.0.0"]
    stored = desk.queue.content()
    assert b"\r" not in stored
    assert b"\0" not in stored
    part = email.message_from_bytes(stored).get_payload()[1]
    assert part.get_payload(decode=True) == binary
    await desk.close()


async def test_binary_mail_that_fits_the_disk_only_before_its_conversion_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    content = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n" + bytes(
        2 * MEMORY_MAX
    )  # one third more in base64
    desk = await Desk(tmp_path).open()
    envelope = ENVELOPE.replace(b"b.test>\r\n", b"b.test> BODY=BINARYMIME\r\n", 1)
    said = HELLO + envelope + b"BDAT %d LAST\r\n" % len(content) + content + b"QUIT\r\n"
    saved = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) * 5 // 4, saved[1]))
    try:
        assert codes(await desk.talk(said))[-2:] == ["452 4.3.1", "221 2.0.0"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, saved)
    async with asyncio.timeout(10):
        while list((tmp_path / "tmp").iterdir()):
            await asyncio.sleep(0.01)
    opened = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert not [name for name in opened if name.startswith(f"{tmp_path}/tmp/")]
    await desk.close()


async def test_a_loop_is_seen_in_binary_mail_that_is_all_header(tmp_path: Path) -> None:
    content = b"Delivered-To: alice@example.test\r\n"
    desk = await Desk(tmp_path).open()
    envelope = ENVELOPE.replace(b"b.test>\r\n", b"b.test> BODY=BINARYMIME\r\n", 1)
    said = HELLO + envelope + b"BDAT %d LAST\r\n" % len(content) + content + b"QUIT\r\n"
    assert codes(await desk.talk(said))[-2:] == ["554 5.4.6", "221 2.0.0"]
    await desk.close()


@pytest.mark.parametrize("lines", [1, MEMORY_MAX // 3, MEMORY_MAX // 2, MEMORY_MAX])
async def test_text_sent_as_binary_is_stored_as_it_is(lines: int, tmp_path: Path) -> None:
    """The larger ones are partly in a file and partly in memory at their end."""
    desk = await Desk(tmp_path).open()
    content = b"A: b\r\n\r\n" + b".x\r\n" * lines
    envelope = ENVELOPE.replace(b"b.test>\r\n", b"b.test> BODY=BINARYMIME\r\n", 1)
    await desk.talk(HELLO + envelope + b"BDAT %d LAST\r\n%bQUIT\r\n" % (len(content), content))
    assert desk.queue.content() == content.replace(b"\r\n", b"\n")
    await desk.close()


async def test_a_client_that_never_takes_its_replies_is_timed_out(tmp_path: Path) -> None:
    desk, tape = Desk(tmp_path), Tape()
    listener = desk.service.new_listener()
    listener.connection_made(tape)
    listener.data_received(b"NOOP\r\n" * 600)  # more than one turn
    listener.pause_writing()
    await asyncio.sleep(0)
    desk.service.sweep(desk.service.clock + desk.service.idle_timeout + 2.0)  # RFC 5321 4.5.3.2.7
    assert tape.closed
    listener.connection_lost(None)


async def test_what_follows_a_refused_login_is_not_logged(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    answer, _ = await feed(
        desk.service, [b"EHLO c\r\nAUTH NTLM\r\nc2VjcmV0\r\nAUTH LOGIN\r\nc2VjcmV0\nc2VjcmV0\r\n"]
    )
    assert codes(answer)[-5:] == ["504 5.5.4", "500 5.5.2", "334 VXNlc", "500 5.5.2", "500 5.5.2"]
    refused = [event for event in desk.events if isinstance(event, CommandRefused)]
    assert len(refused) == 4
    assert "c2VjcmV0" not in repr(desk.events)


async def test_drain_lets_transactions_finish(tmp_path: Path) -> None:
    desk = await Desk(tmp_path).open()
    idle_reader, idle = await desk.connect()
    reader, writer = await desk.connect()
    writer.write(START)
    assert (await idle_reader.readline()).startswith(b"220")
    await reader.readuntil(b"354")
    drained = asyncio.create_task(desk.service.drain(desk.service.now() + 20))
    assert (await idle_reader.read()) == b"421 4.3.2 Service shutting down, try again later\r\n"
    writer.write(b"late\r\n.\r\n")
    assert codes(await reader.read())[-2:] == ["250 2.0.0", "421 4.3.2"]
    writer.close()
    idle.close()
    await drained
    assert len(desk.queue.messages) == 1


async def test_a_client_that_reads_no_replies_does_not_fill_memory(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    tape = Tape()
    listener = desk.service.new_listener()
    listener.connection_made(tape)
    listener.pause_writing()
    before = len(tape.written)
    for _ in range(3):
        listener.data_received(b"NOOP\r\n" * 6000)
    assert tape.paused
    assert len(tape.written) == before
    listener.resume_writing()
    while tape.written.count(b"\n") < 18_001:
        await asyncio.sleep(0)
    assert not tape.paused
    listener.connection_lost(None)


async def test_settings_change_for_open_sessions(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    tape = Tape()
    listener = desk.service.new_listener()
    listener.connection_made(tape)
    limits = desk.config.limits.model_copy(update={"message_size": 1000})
    desk.service.reconfigure(desk.config.model_copy(update={"limits": limits}))
    listener.data_received(HELLO)
    assert b"250-SIZE 1000\r\n" in tape.written
    listener.connection_lost(None)


def test_trace_lines_are_those_of_the_header_wherever_its_content_left_memory() -> None:
    lines = b"Received: by a", b"X: Received: no", b"Delivered-To: b@c.test", b"", b"Delivered-To: d@c", b""
    wire = b"\r\n".join(lines)
    for border in range(1, len(wire)):
        collector = Collector(1 << 20)
        collector.data(wire[:border], 0)
        collector.take()
        collector.data(wire[border:] + b".\r\n", 0)
        assert collector.header().split(b"\n") == [lines[0], lines[2]], border


async def test_a_loop_is_seen_in_a_message_that_lies_in_a_file(tmp_path: Path) -> None:
    desk = await Desk(tmp_path, limits={"received_hops": 10}).open()
    large = b"\r\n" + b"Received: x\r\n" * 200_000 + b".\r\nQUIT\r\n"
    for hops, code in ((10, "250 2.0.0"), (11, "554 5.4.6")):
        said = START + b"Received: from a by b\r\n" * hops + b"Subject: x\r\n" + large
        assert codes(await desk.talk(said))[-2] == code
    await desk.close()
