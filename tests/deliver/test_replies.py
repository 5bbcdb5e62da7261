"""Replies from bytes, whole and byte by byte, and what they mean (RFC 5321 4.2, RFC 3463)."""

from __future__ import annotations

import asyncio
import errno
import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.deliver.commands import seven_bit
from mailserver.deliver.connection import BUFFER_MAX, Connection
from mailserver.deliver.outcome import ConnectionEnded, Phase, Reply, clean, of_error, of_reply, status_of
from mailserver.message.envelope import Deferred, Delivered, Failed


class Wire(asyncio.Transport):
    """A transport that only remembers whether it was aborted."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


def read(*data: bytes) -> tuple[list[Reply], str | None]:
    """The replies in ``data``, and why the connection was broken if it was."""

    async def run() -> tuple[list[Reply], str | None]:
        connection = Connection(asyncio.get_running_loop())
        connection.connection_made(Wire())
        for piece in data:
            connection.data_received(piece)
        replies: list[Reply] = []
        while connection._replies:
            replies.append(await connection.reply(1))
        return replies, connection._end.why if connection._end else None

    return asyncio.run(run())


line = st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b""))
codes = st.integers(200, 599)


@given(st.lists(st.tuples(codes, st.lists(line, min_size=1, max_size=4)), max_size=4))
def test_replies_split_anywhere(replies: list[tuple[int, list[bytes]]]) -> None:
    data = b"".join(
        b"%d%s%s\r\n" % (code, b" " if n == len(lines) - 1 else b"-", text)
        for code, lines in replies
        for n, text in enumerate(lines)
    )
    whole = read(data)
    assert whole == read(*(data[i : i + 1] for i in range(len(data))))
    assert whole[1] is None
    assert [r.code for r in whole[0]] == [code for code, _ in replies]
    assert [len(r.text.split("\n")) for r in whole[0]] == [len(lines) for _, lines in replies]


@given(st.binary(max_size=200))
def test_whatever_comes_is_replies_or_a_broken_connection(data: bytes) -> None:
    assert read(data) == read(*(data[i : i + 1] for i in range(len(data))))


@pytest.mark.parametrize(
    "data",
    [b"hello\r\n", b"25 0\r\n", b"\r\n", b"999 x\r\n", b"2500 x\r\n", b"\xff\xff\xff\r\n", b"+25 x\r\n"],
)
def test_nonsense(data: bytes) -> None:
    assert read(data) == ([], "no SMTP reply but nonsense")


@pytest.mark.parametrize("data", [b"2" * (BUFFER_MAX + 1), b"250-x\r\n" * 10_000])
def test_replies_without_end(data: bytes) -> None:
    assert read(data) == ([], "too long a reply")


def test_bare_codes_and_bare_lf() -> None:
    assert read(b"250\r\n354\n250 ok\n")[0] == [Reply(250, ""), Reply(354, ""), Reply(250, "ok")]


async def test_talk_out_of_turn_breaks_an_idle_connection() -> None:
    connection = Connection(asyncio.get_running_loop())
    transport = Wire()
    connection.connection_made(transport)
    connection.idle = True
    connection.data_received(b"421 4.3.2 going down\r\n")
    assert transport.aborted
    with pytest.raises(ConnectionEnded):
        connection.send(b"MAIL")


@pytest.mark.parametrize(
    ("code", "text", "status"),
    [
        (550, "5.1.1 no", "5.1.1"),
        (550, "5.1.1\nno", "5.1.1"),
        (550, "no", "5.1.0"),
        (450, "4.2.0 x", "4.2.0"),
        (450, "5.2.0 x", "4.2.0"),
        (550, "5.1.x no", "5.1.0"),
        (550, "5.1.1234 no", "5.1.1234"),
        (599, "", "5.0.0"),
        (499, "", "4.0.0"),
    ],
)
def test_enhanced_codes(code: int, text: str, status: str) -> None:
    assert status_of(Reply(code, text)) == status


@pytest.mark.parametrize(
    ("error", "phase", "status", "reply"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "x"),
            "connect",
            "4.4.1",
            "connection refused while connecting",
        ),
        (OSError(errno.ENETUNREACH, "x"), "connect", "4.4.1", "network unreachable while connecting"),
        (OSError("several\nlines"), "connect", "4.4.1", "OSError while connecting"),
        (TimeoutError(), "connect", "4.4.1", "timed out while connecting"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "tls", "4.4.2", "connection reset while starting TLS"),
        (ssl.SSLError(1, "oh"), "connect", "4.7.5", "TLS with peer failed: oh"),
    ],
)
def test_what_the_system_says(error: OSError, phase: Phase, status: str, reply: str) -> None:
    outcome = of_error(error, "peer", phase)
    assert (type(outcome), outcome.status, outcome.remote) == (Deferred, status, "peer")
    assert reply in outcome.reply


@given(st.integers(200, 599), st.text(max_size=600))
def test_every_reply_means_something_printable(code: int, text: str) -> None:
    outcome = of_reply(Reply(code, text), "peer")
    assert type(outcome) is {2: Delivered, 3: Deferred, 4: Deferred, 5: Failed}[code // 100]
    assert outcome.reply.isprintable()
    assert len(outcome.reply) <= 512
    if not isinstance(outcome, Delivered):
        assert outcome.status[0] == ("5" if code >= 500 else "4")


def test_clean() -> None:
    assert clean("a\nb\x1b[31m\u202e" + "x" * 600) == "a b [31m " + "x" * 503


@given(st.text(st.characters(min_codepoint=0x80), max_size=30))
def test_an_original_recipient_travels_encoded_once_and_in_seven_bits(text: str) -> None:
    """RFC 3461 5.2.1: ORCPT goes on as it came; RFC 6533 3 where the peer may not take UTF-8."""
    encoded = seven_bit(f"utf-8;a+2Bb{text}@c.test")
    assert encoded.isascii()
    assert encoded.startswith("utf-8;a+2Bb") and encoded.count("{") == len(text)
