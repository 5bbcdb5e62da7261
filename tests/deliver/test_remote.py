"""Whole attempts against a scripted peer: what each fault in each phase does to each recipient."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from peer import DROP, SILENT, STANDARD, Peer
from sending import HELLO, QUICK, sender

from mailserver.deliver.downgrade import SIZE_MAX
from mailserver.deliver.timeouts import Timeouts
from mailserver.message.envelope import Deferred, Delivered, Failed, Recipient, Remote

CRLF = HELLO.replace(b"\n", b"\r\n")
PLAIN = tuple(offer for offer in STANDARD if offer != "PIPELINING")


@pytest.mark.both_loops
@pytest.mark.parametrize("offers", [STANDARD, PLAIN, ()])
@pytest.mark.parametrize("chop", [False, True])
async def test_a_message_arrives_as_it_was(tmp_path: Path, offers: tuple[str, ...], chop: bool) -> None:
    async with Peer(offers=offers, chop=chop) as peer, sender(tmp_path) as our:
        (result,) = await our.send(peer.route)
    assert result == Delivered("250 2.0.0 taken", f"127.0.0.1[127.0.0.1]:{peer.port}", "DSN" in offers)
    assert [m.content for m in peer.messages] == [CRLF]
    assert peer.messages[0].mail.startswith("MAIL FROM:<s@here.test>")
    assert peer.said[0] == "EHLO mail.here.test"
    assert peer.said[-1] == "QUIT"


async def test_pipelining_needs_four_round_trips(tmp_path: Path) -> None:
    async with Peer() as peer, sender(tmp_path) as our:
        await our.send(peer.route, [f"u{n}@a.test" for n in range(5)])
        assert peer.bursts == [1, 7]  # EHLO; MAIL, five RCPTs and DATA in one; the content


async def test_kept_connections_are_used_again(tmp_path: Path) -> None:
    async with Peer() as peer, sender(tmp_path) as our:
        for _ in range(105):
            assert isinstance((await our.send(peer.route))[0], Delivered)
        assert peer.connections == 2  # a connection is good for 100
        assert "RSET" not in peer.said


async def test_nothing_is_kept_when_told_so(tmp_path: Path) -> None:
    async with Peer() as peer, sender(tmp_path, keep_connection=0) as our:
        await our.send(peer.route)
        await peer.quiet.wait()
        await our.send(peer.route)
        assert peer.connections == 2


async def test_idle_connections_end_politely(tmp_path: Path) -> None:
    async with Peer() as peer, sender(tmp_path, keep_connection=0.05) as our:
        await our.send(peer.route)
        await peer.quiet.wait()
        assert peer.said[-1] == "QUIT"
        assert our.remote.status() == {"idle_connections": 0}


@pytest.mark.both_loops
@pytest.mark.parametrize("last_words", [[], ["421 4.3.2 going down"]])
async def test_a_kept_connection_that_died_does_not_count(tmp_path: Path, last_words: list[str]) -> None:
    async with Peer() as peer, sender(tmp_path) as our:
        await our.send(peer.route)
        for conversation in list(peer.open):
            for words in last_words:
                conversation.say(words)
            conversation.transport.close()
        assert isinstance((await our.send(peer.route))[0], Delivered)
        assert peer.connections == 2


async def test_a_kept_connection_that_dies_under_the_first_command(tmp_path: Path) -> None:
    async with Peer({"MAIL": ["250 ok", DROP, "250 ok"]}) as peer, sender(tmp_path) as our:
        await our.send(peer.route)
        assert isinstance((await our.send(peer.route))[0], Delivered)
        assert (peer.connections, len(peer.messages)) == (2, 2)


async def test_parallel_attempts_have_a_connection_each_and_few_are_kept(tmp_path: Path) -> None:
    async with Peer() as peer, sender(tmp_path, concurrency_per_destination=2) as our:
        results = await asyncio.gather(*(our.send(peer.route) for _ in range(5)))
        assert [type(r) for (r,) in results] == [Delivered] * 5
        assert peer.connections == 5
        assert our.remote.status() == {"idle_connections": 2}


@pytest.mark.both_loops
async def test_a_cancelled_attempt_hangs_up(tmp_path: Path) -> None:
    async with Peer({"MAIL": SILENT}) as peer, sender(tmp_path, timeouts=Timeouts()) as our:
        attempt = asyncio.create_task(our.send(peer.route))
        await peer.mail_came.wait()
        attempt.cancel()
        await peer.quiet.wait()
        with pytest.raises(asyncio.CancelledError):
            await attempt


@pytest.mark.parametrize("offers", [STANDARD, PLAIN])
@pytest.mark.parametrize(
    ("script", "kind", "status"),
    [
        ({"GREETING": "554 5.7.1 we do not like you"}, Deferred, "4.7.1"),
        ({"GREETING": "554 go away"}, Deferred, "4.3.2"),
        ({"GREETING": "421 4.3.2 later"}, Deferred, "4.3.2"),
        ({"GREETING": DROP}, Deferred, "4.4.2"),
        ({"GREETING": SILENT}, Deferred, "4.4.2"),
        ({"GREETING": "HTTP/1.0 400 Bad Request"}, Deferred, "4.5.0"),
        ({"GREETING": "220-" + "x" * 70000}, Deferred, "4.5.0"),
        ({"EHLO": "550 no", "HELO": "550 5.7.1 no"}, Deferred, "4.7.1"),
        ({"EHLO": "450 busy"}, Deferred, "4.2.0"),
        ({"EHLO": DROP}, Deferred, "4.4.2"),
        ({"EHLO": SILENT}, Deferred, "4.4.2"),
        ({"MAIL": "550 5.7.1 not you"}, Failed, "5.7.1"),
        ({"MAIL": "451 4.7.1 greylisted"}, Deferred, "4.7.1"),
        ({"MAIL": "421 4.7.0 too fast"}, Deferred, "4.7.0"),
        ({"MAIL": DROP}, Deferred, "4.4.2"),
        ({"MAIL": SILENT}, Deferred, "4.4.2"),
        ({"MAIL": "354 what"}, Deferred, "4.5.0"),
        ({"RCPT": "550 5.1.1 no such user"}, Failed, "5.1.1"),
        ({"RCPT": "550 no such user"}, Failed, "5.1.0"),
        ({"RCPT": "550 4.2.2 contradiction"}, Failed, "5.1.0"),
        ({"RCPT": "450 4.4.2 our next hop times out"}, Deferred, "4.4.2"),
        ({"RCPT": "451 4.3.2 mailbox being moved"}, Deferred, "4.3.2"),
        ({"RCPT": "421 bye"}, Deferred, "4.3.2"),
        ({"RCPT": DROP}, Deferred, "4.4.2"),
        ({"DATA": "554 5.7.0 no"}, Failed, "5.7.0"),
        ({"DATA": "451 wait"}, Deferred, "4.3.0"),
        ({"DATA": "250 what"}, Deferred, "4.5.0"),
        ({"DATA": "354 go on\r\n250 2.0.0 taken unseen"}, Deferred, "4.5.0"),
        ({"DATA": DROP}, Deferred, "4.4.2"),
        ({"DATA": SILENT}, Deferred, "4.4.2"),
        ({".": "554 5.6.0 spam"}, Failed, "5.6.0"),
        ({".": "552 5.2.2 full"}, Failed, "5.2.2"),
        ({".": "452 4.3.1 disk full"}, Deferred, "4.3.1"),
        ({".": "421 4.3.2 later"}, Deferred, "4.3.2"),
        ({".": DROP}, Deferred, "4.4.2"),
        ({".": SILENT}, Deferred, "4.4.2"),
        ({".": "what?"}, Deferred, "4.5.0"),
        ({".": "354 what?"}, Deferred, "4.5.0"),
    ],
)
async def test_every_fault_in_every_phase(
    tmp_path: Path, offers: tuple[str, ...], script: dict[str, Any], kind: type, status: str
) -> None:
    async with Peer(script, offers=offers) as peer, sender(tmp_path) as our:
        (result,) = await our.send(peer.route)
        assert (type(result), result.status) == (kind, status)
        assert result.reply.isprintable()
        assert len(result.reply) <= 512
    # What concerns the host, not this message: no greeting, no EHLO, 421, silence (and nothing but that).
    (phase, answer) = list(script.items())[-1]
    ill = phase in {"GREETING", "EHLO", "HELO"} or answer is SILENT or answer.startswith("421")
    assert getattr(result, "unreachable", False) == ill
    said_dot = list(script) == ["."] and script["."] in {DROP, SILENT, "what?"}
    assert ("arrive twice" in result.reply) == said_dot  # only then it may be there although we do not know


async def test_helo_for_the_old(tmp_path: Path) -> None:
    async with Peer({"EHLO": "502 what?"}) as peer, sender(tmp_path) as our:
        assert isinstance((await our.send(peer.route))[0], Delivered)
        assert peer.said[1:3] == ["HELO mail.here.test", "MAIL FROM:<s@here.test>"]


async def test_recipients_are_judged_one_by_one(tmp_path: Path) -> None:
    answers = {"no@a.test": "550 5.1.1 unknown", "later@a.test": "450 4.2.1 later"}
    async with Peer({"RCPT": answers}) as peer, sender(tmp_path) as our:
        results = await our.send(peer.route, ["no@a.test", "yes@a.test", "later@a.test", "too@a.test"])
        assert [type(r) for r in results] == [Failed, Delivered, Deferred, Delivered]
        assert len(peer.messages) == 1
        await our.send(peer.route)  # the session is still good
        assert peer.connections == 1


async def test_a_reply_of_many_lines_is_one_text_with_one_code(tmp_path: Path) -> None:
    """RFC 2034 4: every line bears the enhanced code; RFC 3464 2.3.6: Diagnostic-Code is one text."""
    reply = (
        "550-5.1.1 The account does not exist.\r\n550-5.1.1 Check it for 5.1.1 typing\r\n550 5.1.1 errors."
    )
    async with Peer({"RCPT": reply}) as peer, sender(tmp_path) as our:
        (result,) = await our.send(peer.route)
        assert result.reply == "550 5.1.1 The account does not exist. Check it for 5.1.1 typing errors."


@pytest.mark.parametrize("data", ["354 go on", "503 no recipients"])
async def test_data_after_every_recipient_was_refused(tmp_path: Path, data: str) -> None:
    """RFC 2920 3.1: 354 must be answered with an empty message, then RSET."""
    async with (
        Peer({"RCPT": ["550 5.1.1 no", "250 ok"], "DATA": [data, "354 go on"]}) as peer,
        sender(tmp_path) as our,
    ):
        assert isinstance((await our.send(peer.route))[0], Failed)
        assert isinstance((await our.send(peer.route))[0], Delivered)
        assert [m.content for m in peer.messages][-1] == CRLF
        assert [m.content for m in peer.messages][:-1] == ([b""] if data.startswith("354") else [])
        assert "RSET" in peer.said
        assert peer.connections == 1


@pytest.mark.parametrize("reply", ["452 4.5.3 too many", "552 too many", "452 enough"])
async def test_a_full_transaction_is_followed_by_another(tmp_path: Path, reply: str) -> None:
    """RFC 5321 4.5.3.1.10: 552 after accepted recipients means 452."""
    answers = ["250 ok", "250 ok", reply, reply, "250 ok", "250 ok"]
    async with Peer({"RCPT": answers}) as peer, sender(tmp_path) as our:
        results = await our.send(peer.route, [f"u{n}@a.test" for n in range(4)])
        assert [type(r) for r in results] == [Delivered] * 4
        assert [len(m.rcpts) for m in peer.messages] == [2, 2]


async def test_one_full_mailbox_is_no_full_transaction(tmp_path: Path) -> None:
    async with Peer({"RCPT": {"b@a.test": "552 5.2.2 over quota"}}) as peer, sender(tmp_path) as our:
        results = await our.send(peer.route, ["a@a.test", "b@a.test"])
        assert [type(r) for r in results] == [Delivered, Failed]


async def test_limits_of_both_sides_bound_a_transaction(tmp_path: Path) -> None:
    async with (
        Peer(offers=(*STANDARD, "LIMITS RCPTMAX=3 MAILMAX=2")) as peer,
        sender(tmp_path, recipients_per_transaction=5) as our,
    ):
        await our.send(peer.route, [f"u{n}@a.test" for n in range(7)])
        assert [len(m.rcpts) for m in peer.messages] == [3, 3, 1]
        assert peer.connections == 2  # two messages are all that one may carry


@pytest.mark.both_loops
async def test_large_messages_are_streamed(tmp_path: Path) -> None:
    data = b"Subject: large\n\n" + b"".join(b".%d is a line\n" % n for n in range(60000))
    async with Peer(offers=("PIPELINING", "8BITMIME", "SIZE 0")) as peer, sender(tmp_path) as our:
        assert isinstance((await our.send(peer.route, data=data))[0], Delivered)
        assert peer.messages[0].content == data.replace(b"\n", b"\r\n")


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("last_words", "kind"), [(SILENT, Deferred), ("552 5.3.4 enough", Failed), ("451 4.3.1 full", Deferred)]
)
async def test_a_peer_that_hangs_up_amid_the_content(tmp_path: Path, last_words: str, kind: type) -> None:
    data = b"Subject: large\n\n" + b"line\n" * 2_000_000
    script = {"DATA": "DATA-DROP", "WHILE-DATA": last_words}
    async with Peer(script, offers=("PIPELINING", "8BITMIME")) as peer, sender(tmp_path) as our:
        (result,) = await our.send(peer.route, data=data)
        # The last words may be lost with the connection (RFC 9293 3.5.2): then it is deferred.
        assert type(result) in {kind, Deferred}
        assert "twice" not in result.reply


@pytest.mark.parametrize(("early", "kind"), [("250 2.0.0 taken", Deferred), ("552 5.3.4 enough", Failed)])
async def test_an_answer_before_the_end_of_the_content_takes_no_message(
    tmp_path: Path, early: str, kind: type
) -> None:
    """RFC 5321 4.3.1: after 354 nothing is said before the final dot has been seen."""
    data = b"Subject: large\n\n" + b"line\n" * 2_000_000
    script = {"WHILE-DATA": [early, SILENT]}
    async with Peer(script, offers=("PIPELINING", "8BITMIME")) as peer, sender(tmp_path) as our:
        (result,) = await our.send(peer.route, data=data)
        assert type(result) is kind and early in result.reply
        await peer.quiet.wait()  # the dot is not sent, so the peer cannot take what we report as refused
        assert peer.messages == []


async def test_size_is_checked_beforehand(tmp_path: Path) -> None:
    async with Peer(offers=("SIZE 10",)) as peer, sender(tmp_path) as our:
        (result,) = await our.send(peer.route)
        assert (type(result), result.status) == (Failed, "5.3.4")
        assert not any(line.startswith("MAIL") for line in peer.said)


async def test_a_conversion_is_bounded_and_what_needs_none_is_not(tmp_path: Path) -> None:
    text = b"Subject: s\n\n" + b"line\n" * (SIZE_MAX // 5)
    async with Peer(offers=()) as peer, sender(tmp_path) as our:
        (result,) = await our.send(peer.route, data=text + b"\xff\n", body="8BITMIME")
        assert (type(result), result.status) == (Failed, "5.6.3")
        assert isinstance((await our.send(peer.route, data=text, body="8BITMIME"))[0], Delivered)


async def test_a_size_that_is_no_number_of_rfc_1870_limits_nothing(tmp_path: Path) -> None:
    async with Peer(offers=(f"SIZE {'9' * 5000}",)) as peer, sender(tmp_path) as our:
        assert isinstance((await our.send(peer.route))[0], Delivered)


async def test_extensions_are_used_when_offered(tmp_path: Path) -> None:
    recipient = Recipient(
        7, "jürgen@a.test", Remote("x"), orcpt="rfc822;a+2Bb+3Dc@d.test", notify=("SUCCESS", "DELAY")
    )
    data = "Subject: grüß\n\ngrüß\n".encode()
    envelope = {"ret": "HDRS", "envid": "QQ+2B1", "smtputf8": True, "body": "8BITMIME"}
    async with Peer() as peer, sender(tmp_path) as our:
        (result,) = await our.send(peer.route, [recipient], data, **envelope)
        assert result.dsn
    wire = len(data) + 3
    assert peer.messages[0].mail == (
        f"MAIL FROM:<s@here.test> SIZE={wire} BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B1"
    )
    assert peer.messages[0].rcpts == [
        "RCPT TO:<jürgen@a.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb+3Dc@d.test"
    ]


async def test_no_smtputf8_no_mail_beyond_ascii(tmp_path: Path) -> None:
    async with Peer(offers=("PIPELINING", "8BITMIME")) as peer, sender(tmp_path) as our:
        results = await our.send(peer.route, ["jürgen@a.test", "ascii@a.test"], smtputf8=True)
        assert [type(r) for r in results] == [Failed, Delivered]
        assert results[0].status == "5.6.7"
        (result,) = await our.send(peer.route, data="Subject: ü\n\n".encode(), smtputf8=True)
        assert (type(result), result.status) == (Failed, "5.6.7")


async def test_eight_bit_content_is_converted_for_the_old(tmp_path: Path) -> None:
    data = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGrüße\n".encode()
    async with Peer(offers=()) as peer, sender(tmp_path) as our:
        assert isinstance((await our.send(peer.route, data=data, body="8BITMIME"))[0], Delivered)
        assert b"Gr=C3=BC=C3=9Fe" in peer.messages[0].content
        (result,) = await our.send(peer.route, data=b"Subject: \xff\n\n", body="8BITMIME")
        assert (type(result), result.status) == (Failed, "5.6.3")


async def test_the_null_sender(tmp_path: Path) -> None:
    async with Peer(offers=()) as peer, sender(tmp_path) as our:
        await our.send(peer.route, sender=None)
        assert peer.messages[0].mail == "MAIL FROM:<>"


async def test_lmtp_answers_for_each_recipient(tmp_path: Path) -> None:
    script = {"RCPT": {"no@a.test": "550 5.1.1 no"}, ".": ["250 2.0.0 ok", "452 4.2.2 full", "250 2.0.0 ok"]}
    async with Peer(script, lmtp=True) as peer, sender(tmp_path) as our:
        results = await our.send(peer.route, ["a@a.test", "no@a.test", "b@a.test", "c@a.test"])
        assert [type(r) for r in results] == [Delivered, Failed, Deferred, Delivered]
        assert peer.said[0] == "LHLO mail.here.test"
        await our.send(peer.route)
        assert peer.connections == 1


async def test_lmtp_lost_between_two_verdicts(tmp_path: Path) -> None:
    async with Peer({".": ["250 2.0.0 ok", DROP]}, lmtp=True) as peer, sender(tmp_path) as our:
        results = await our.send(peer.route, ["a@a.test", "b@a.test"])
        assert [type(r) for r in results] == [Delivered, Deferred]
        assert "twice" in results[1].reply


@pytest.mark.parametrize("destination", ["smtp://", "gopher://x", "[1.2.3.999]"])
async def test_destinations_that_are_none(tmp_path: Path, destination: str) -> None:
    async with sender(tmp_path) as our:
        (result,) = await our.send(destination)
        assert type(result) is (Failed if destination.startswith("[") else Deferred)


async def test_nobody_listens(tmp_path: Path, free_port: Any) -> None:
    async with sender(tmp_path, timeouts=QUICK) as our:
        (result,) = await our.send(f"smtp://127.0.0.1:{free_port()}")
        assert (type(result), result.status) == (Deferred, "4.4.1")
        assert result.reply == "connection refused while connecting"


async def test_content_that_cannot_be_read_never_ends_with_a_dot(tmp_path: Path) -> None:
    async with Peer() as peer, sender(tmp_path) as our:
        attempt = our.attempt(peer.route, data=b"Subject: x\n\n" + b"line\n" * 100_000)
        os.truncate(attempt.content.path, 300_000)
        with pytest.raises(OSError, match="shorter"):
            await our.remote(attempt)
        assert not peer.messages
