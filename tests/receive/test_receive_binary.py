"""BODY=BINARYMIME becomes text (RFC 3030 3, RFC 2046 5.1): what a MIME reader sees stays the same."""

from __future__ import annotations

import email
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.receive.binary import DEPTH_MAX, LOOKALIKES_MAX, PARTS_MAX, TYPE_MAX, to_text

BINARY = b"\0\r\n\r\xff\n--x\r\n"
LEAF = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n"


def multipart(boundary: bytes, *parts: bytes) -> bytes:
    lines = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    head = b"Content-Type: multipart/mixed; boundary=" + boundary + b"\r\n\r\n"
    return head + lines + b"--" + boundary + b"--\r\n"


def leaves(stored: bytes) -> list[bytes]:
    parts = email.message_from_bytes(stored).walk()
    return [part.get_payload(decode=True) for part in parts if not part.is_multipart()]


PARTS = st.recursive(
    st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"a\r\nb", BINARY, b"\r", b"\n--b0\n"])).map(
        lambda octets: (LEAF + octets, [octets])
    ),
    lambda part: st.lists(part, min_size=1, max_size=4),
    max_leaves=8,
)


def build(tree: object, depth: int = 0) -> tuple[bytes, list[bytes]]:
    if isinstance(tree, tuple):
        return tree
    children = [build(child, depth + 1) for child in tree]  # type: ignore[attr-defined]  # a list then
    boundary = b"b%d" % depth + b"x" * depth
    return multipart(boundary, *(wire for wire, _ in children)), [o for _, found in children for o in found]


@given(PARTS)
def test_every_part_keeps_its_octets(tree: object) -> None:
    wire, expected = build(tree)
    stored = to_text(wire)
    assert stored is not None
    assert b"\r" not in stored
    assert b"\0" not in stored
    if to_text(wire) != wire.replace(b"\r\n", b"\n"):
        found = leaves(stored)
        assert len(found) == len(expected)
        for have, want in zip(found, expected, strict=True):
            assert have.replace(b"\n", b"\r\n").rstrip(b"\r\n") == want.rstrip(b"\r\n") or have == want


def test_the_octets_around_a_converted_part_are_untouched() -> None:
    text = b"Content-Type:   text/plain;\r\n\tcharset=x\r\nX-Odd:  \xe9\r\n\r\nhi  \r\n"
    wire = b"Subject: =?odd?=\r\n" + multipart(b"b", text, LEAF + BINARY).replace(b"\n--b\r", b"\n--b \t\r")
    stored = to_text(b"X: y\r\n" + wire)
    assert stored is not None
    assert stored.startswith(b"X: y\n" + wire[: wire.find(LEAF)].replace(b"\r\n", b"\n"))
    assert leaves(stored)[1] == BINARY


def test_a_message_within_a_message_is_not_encoded_but_its_parts_are() -> None:
    inner = b"Subject: inner\r\n" + multipart(b"b2", LEAF + BINARY)
    label = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    stored = to_text(multipart(b"b", label + inner))
    assert stored is not None
    assert stored.count(b"Content-Transfer-Encoding: 8bit\n") == 1
    assert leaves(stored) == [BINARY]


@pytest.mark.parametrize(
    "wire",
    [
        b"\0: bare\r\n\r\n" + BINARY,  # a NUL in a header cannot be encoded
        b"Content-Transfer-Encoding: base64\r\n\r\n\0",  # said to be text, and is not
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n\0\r\n--b\r\n\r\n--b--\r\n",  # in the preamble
        b"Content-Type: x/y; a=" + b";" * TYPE_MAX + b"\r\n\r\n\0",
        b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i) for i in range(2000)
        )
        + LEAF
        + b"\0",
        b"Content-Type: message/rfc822\r\n\r\n" * (DEPTH_MAX + 1) + LEAF + b"\0",
        multipart(b"b", *([b"\r\n"] * PARTS_MAX), LEAF + b"\0"),
        multipart(b"b", b"\r\n" + b"\r\n--b-" * (LOOKALIKES_MAX + 1), LEAF + b"\0"),
    ],
    ids=["header", "encoded", "preamble", "type", "deep", "messages", "many", "lookalikes"],
)
def test_what_cannot_be_converted_is_refused_and_not_tried_again(wire: bytes) -> None:
    assert to_text(wire) is None


def test_memory_does_not_depend_on_the_number_of_lines() -> None:
    wire = LEAF + b"a\r\n" * 500_000 + b"\0"
    tracemalloc.start()
    stored = to_text(wire)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stored is not None
    assert peak < 8 * len(wire)
