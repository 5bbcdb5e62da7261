"""8-bit MIME for peers that take seven bits (RFC 6152 3, RFC 2045 6)."""

from __future__ import annotations

from contextlib import suppress
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTPUTF8, default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.deliver.downgrade import CannotConvert, to_seven_bit


def test_parts_are_converted_and_mean_the_same() -> None:
    message = EmailMessage()
    message["Subject"] = "x"
    message["X-Folded"] = "kept as it is"
    message.set_content("Grüße, " * 40, cte="8bit")
    message.add_attachment(b"\xff\x00\x01" * 50, "application", "octet-stream", filename="x", cte="base64")
    inner = EmailMessage()
    inner.set_content("naïve\n", cte="8bit")
    message.add_attachment(inner)
    original = message.as_bytes(policy=SMTPUTF8.clone(linesep="\n"))
    assert not original.isascii()
    converted = to_seven_bit(original)
    assert converted.isascii()
    before, after = (message_from_bytes(m, policy=default) for m in (original, converted))
    leaves = [
        [p.get_content() for p in m.walk() if p.get_content_maintype() in {"text", "application"}]
        for m in (before, after)
    ]
    assert leaves[0] == leaves[1]
    assert max(map(len, converted.split(b"\n"))) < 998


def test_binary_becomes_base64() -> None:
    body = bytes(range(128, 256))
    converted = to_seven_bit(
        b"Content-Type: image/x\nContent-Transfer-Encoding: binary\nMIME-Version: 1.0\n\n" + body
    )
    assert message_from_bytes(converted).get_payload(decode=True) == body


@pytest.mark.parametrize(
    "content",
    [
        b"Subject: \xc3\xbc\n\nx\n",
        b'Content-Type: multipart/mixed; boundary="b"\n\n\xff preamble\n--b\n\nx\n--b--\n',
        b"A: b\n" * 60_000 + b"\nx\n",  # parsing would take the machine's time
        b'Content-Type: multipart/mixed; boundary="b"\n' + b"\n--b\n" * 10_001,
    ],
    ids=["header", "preamble", "long header", "many parts"],
)
def test_what_has_no_seven_bit_form(content: bytes) -> None:
    with pytest.raises(CannotConvert):
        to_seven_bit(content)


@given(st.binary(max_size=300))
def test_anything_is_converted_or_refused(content: bytes) -> None:
    with suppress(CannotConvert):
        assert to_seven_bit(content).isascii()
