"""8-bit MIME → 7-bit MIME, for peers without 8BITMIME (RFC 6152 3, RFC 2045 6).

The only place where a foreign message is generated anew: text becomes quoted-printable, everything else
base64. A signature over the body breaks; the alternative is a bounce. A report of ours cannot bounce: where the message
it returns has no such form, it returns the headers alone.
"""

from __future__ import annotations

import base64
import quopri
import re
from email import message_from_bytes
from email.generator import BytesGenerator
from email.message import Message
from email.policy import compat32
from io import BytesIO

from mailserver.deliver.bounce import headers_part

SIZE_MAX = 4 << 20  # octets; the parser takes 1 s and 40 MiB for one MiB of short lines
HEADER_MAX = 1 << 18  # octets; a field takes the parser 20 µs
DELIMITERS_MAX = 10_000  # lines that may begin or end a part
_REPORT = re.compile(  # as bounce.compose begins it
    rb"(?:(?!\n\n).)*?\nContent-Type: multipart/report; report-type=delivery-status;\n\t"
    rb'boundary="(?P<boundary>=_[0-9A-Z]+\.[0-9]+)"\n\n',
    re.DOTALL,
)
_REPORT_PARTS = 3  # RFC 3462 1
_POLICY = compat32.clone(linesep="\n", max_line_length=None, mangle_from_=False)


class CannotConvert(Exception):  # noqa: N818 - says the fact
    """The message has no 7-bit form; ``str(error)`` says why."""


def to_seven_bit(content: bytes) -> bytes:
    """An equivalent message of ASCII octets, LF in and out. Raises CannotConvert. Slow: use a thread."""
    try:
        return _converted(content)
    except CannotConvert:
        if (report := _with_headers_alone(content)) is not None:
            return report
        raise


def _converted(content: bytes) -> bytes:
    if len(content) > SIZE_MAX:
        raise CannotConvert("too large")
    if content.find(b"\n\n", 0, HEADER_MAX) < 0 and len(content) > HEADER_MAX:
        raise CannotConvert("the header is too large")
    if content.count(b"\n--") > DELIMITERS_MAX:
        raise CannotConvert("too many parts")
    try:
        message = message_from_bytes(content, policy=_POLICY)
        for part in message.walk():
            _convert(part)
        if "MIME-Version" not in message:
            message["MIME-Version"] = "1.0"
        out = BytesIO()
        BytesGenerator(out, policy=_POLICY).flatten(message)
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # The email package raises all of these on malformed input; the message is to blame, not the program.
        raise CannotConvert("malformed MIME") from error
    result = out.getvalue()
    if not result.isascii():
        raise CannotConvert("8-bit characters in headers or between MIME parts")
    return result


def _with_headers_alone(report: bytes) -> bytes | None:
    """A report of ours without the body of the message it returns. None: ``report`` is no such one."""
    if not (match := _REPORT.match(report)):
        return None
    delimiter = b"\n--" + match["boundary"]
    head, *parts, end = report.split(delimiter)
    if len(parts) != _REPORT_PARTS or end != b"--\n":
        return None
    head = head.replace(b"\nContent-Transfer-Encoding: 8bit\n", b"\n")
    returned = parts.pop().partition(b"\n\n")[2]
    short = delimiter.join((head, *parts, b"\n" + headers_part(returned), end))
    return short if short.isascii() else None


def _convert(part: Message) -> None:
    encoding = str(part.get("Content-Transfer-Encoding", "7bit")).strip().lower()
    if part.is_multipart():
        if encoding in {"8bit", "binary"}:  # a label only: what is inside decides
            _label(part, "7bit")
        return
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes) or encoding not in {"7bit", "8bit", "binary", ""}:
        return  # encoded already
    if payload.isascii():
        if encoding != "7bit":
            _label(part, "7bit")
        return
    if part.get_content_maintype() == "text" and b"\0" not in payload:
        part.set_payload(quopri.encodestring(payload).decode("ascii"))
        _label(part, "quoted-printable")
    else:
        part.set_payload(base64.encodebytes(payload).decode("ascii"))
        _label(part, "base64")


def _label(part: Message, encoding: str) -> None:
    if "Content-Transfer-Encoding" in part:
        part.replace_header("Content-Transfer-Encoding", encoding)
    else:
        part["Content-Transfer-Encoding"] = encoding
