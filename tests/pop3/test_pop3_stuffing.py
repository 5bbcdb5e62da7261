"""Byte-stuffing and TOP, against RFC 1939 sections 3 and 7."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.pop3.stuffing import Stuffing, dot_stuff

messages = st.lists(
    st.sampled_from([b"\n", b"\n", b"\r\n", b"\r", b".", b"..", b"a", b"Subject: x"]), max_size=40
).map(b"".join)


def unstuff(wire: bytes) -> list[bytes]:
    """What poplib does with the lines of a multi-line reply."""
    assert wire.endswith(b"\r\n") or not wire
    lines = wire.split(b"\r\n")[:-1]
    return [line[1:] if line.startswith(b"..") else line for line in lines]


@pytest.mark.parametrize(
    ("stored", "lines", "wire"),
    [
        (b"a: b\n\nbody\n", None, b"a: b\r\n\r\nbody\r\n"),
        (b".a\n\n.\n..b\nc.\n", None, b"..a\r\n\r\n..\r\n...b\r\nc.\r\n"),
        (b"", None, b""),
        (b"no end", None, b"no end\r\n"),
        (b"a: b\n\n1\n2\n3\n", 0, b"a: b\r\n\r\n"),
        (b"a: b\n\n1\n2\n3\n", 2, b"a: b\r\n\r\n1\r\n2\r\n"),
        (b"a: b\n\n1\n2\n3\n", 99, b"a: b\r\n\r\n1\r\n2\r\n3\r\n"),
        (b"a: b\n\n1\n2", 2, b"a: b\r\n\r\n1\r\n2\r\n"),
        (b"a: b\n\n\n.\n\n", 2, b"a: b\r\n\r\n\r\n..\r\n"),
        (b"\nbody\nmore\n", 1, b"\r\nbody\r\n"),  # no header at all
        (b"only: header\n", 0, b"only: header\r\n"),
        (
            b"a: b\r\n\r\n.c\r\nd\r\n",
            None,
            b"a: b\r\n\r\n..c\r\nd\r\n",
        ),  # stored with CRLF by another program
        (b"a: b\r\n\r\n1\r\n2\r\n", 1, b"a: b\r\n\r\n1\r\n"),
        (b"a: b\n\nsome\r\nlines\n", None, b"a: b\r\n\r\nsome\r\nlines\r\n"),  # and with both
        (b"a: b\n\nbare\rCR\r\r\n", None, b"a: b\r\n\r\nbare\rCR\r\r\n"),
    ],
)
def test_wire_form(stored: bytes, lines: int | None, wire: bytes) -> None:
    assert dot_stuff(stored, lines) == wire


@given(messages)
def test_a_client_gets_back_what_is_stored(stored: bytes) -> None:
    stored = b"X: y\n" + stored
    lines = stored.replace(b"\r\n", b"\n")
    complete = lines if lines.endswith(b"\n") else lines + b"\n"
    assert unstuff(dot_stuff(stored)) == complete.split(b"\n")[:-1]


@given(messages, st.none() | st.integers(0, 12))
def test_no_line_on_the_wire_is_taken_for_the_end(stored: bytes, lines: int | None) -> None:
    assert b"." not in dot_stuff(stored, lines).split(b"\r\n")


@given(messages, st.none() | st.integers(0, 12), st.lists(st.integers(1, 9), max_size=20))
def test_in_pieces_it_is_the_same(stored: bytes, lines: int | None, sizes: list[int]) -> None:
    for cuts in (sizes, [1] * len(stored)):
        stuffing, wire, rest = Stuffing(lines), b"", stored
        for size in [*cuts, len(stored)]:
            piece, rest = rest[:size], rest[size:]
            if piece and not stuffing.done:
                wire += stuffing.feed(piece)
        assert wire + stuffing.finish() == dot_stuff(stored, lines) + b".\r\n"


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_top_finds_its_line_in_a_long_body(total: int, wanted: int) -> None:
    body = b"".join(b"%d\n" % n for n in range(total))
    lines = unstuff(dot_stuff(b"a: b\n\n" + body, wanted))
    assert lines == [b"a: b", b"", *(b"%d" % n for n in range(min(total, wanted)))]
