"""8-bit MIME for peers that take seven bits (RFC 6152 3, RFC 2045 6)."""

from __future__ import annotations

from contextlib import suppress
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTPUTF8, default
from quopri import decodestring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.deliver.bounce import compose
from mailserver.deliver.downgrade import CannotConvert, to_seven_bit
from mailserver.message.envelope import Envelope, Failed, Recipient, Remote


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


@pytest.mark.parametrize(
    "original",
    [
        "From: J\u00fcrgen <a@x.test>\nSubject: gr\u00fc\u00dfe\n\nb\u00f6dy\n".encode(),
        b'From: a@x.test\nContent-Type: multipart/mixed; boundary="b"\n\n\xff preamble\n--b\n\nx\n--b--\n',
    ],
    ids=["header", "preamble"],
)
def test_a_report_goes_out_with_the_headers_alone_rather_than_not_at_all(original: bytes) -> None:
    to = Recipient(id=0, address="bob@remote.test", route=Remote("remote.test"))
    about = Envelope(id="ID1", sender="a@x.test", recipients=[to], accepted=0.0, size=len(original))
    report = compose(
        about, [(to, Failed("550 5.1.1 no", "5.1.1", "mx"))], kind="failure", original=original, hostname="h.test",
        id="ID2", now=60.0,
    )  # fmt: skip
    assert original in report  # whole, where eight bits may travel
    converted = to_seven_bit(report)
    assert converted.isascii()
    message = message_from_bytes(converted, policy=default)
    assert [part.get_content_type() for part in message.iter_parts()][:2] == [
        "text/plain",
        "message/delivery-status",
    ]
    assert b"\n\n" + original.partition(b"\n\n")[0] + b"\n" in decodestring(converted)
    assert "8bit" not in str(message["Content-Transfer-Encoding"])


@given(st.binary(max_size=300))
def test_anything_is_converted_or_refused(content: bytes) -> None:
    with suppress(CannotConvert):
        assert to_seven_bit(content).isascii()
