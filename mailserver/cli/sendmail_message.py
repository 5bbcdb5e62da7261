"""A message as programs pipe it into sendmail: recipients read from its header, Bcc removed, missing fields
added.

Pure. Fields are edited whole, octet by octet as they came (RFC 5322 2.2); the body is never touched. Lines
end in LF here, and hold no CR.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from email.utils import formataddr, formatdate
from typing import NamedTuple

_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_TO = (b"to", b"cc", b"bcc")
_CHARACTER = re.compile(r"\\.|.", re.DOTALL)  # or a quoted pair
_CLOSING = {'"': '"', "[": "]"}


class Message(NamedTuple):
    """``fields``: each with its continuation lines and final LF. ``body`` without the empty line before
    it."""

    fields: tuple[bytes, ...]
    body: bytes

    def content(self) -> bytes:
        """What goes over the wire, with CRLF."""
        return (b"".join(self.fields) + b"\n" + self.body).replace(b"\n", b"\r\n")


def read(lines: Iterable[bytes], *, dot_ends: bool) -> Message:
    """``dot_ends``: a line with a single dot is the end (sendmail without -i). What does not start with a
    header field is all body; an mbox "From " line in front is dropped.

    A CR amid a line, which no message may hold (RFC 5322 2.3), becomes a space: a cron job's progress display
    must not cost its report.
    """
    kept: list[bytes] = []
    for line in lines:
        text = line.removesuffix(b"\n").removesuffix(b"\r").replace(b"\r", b" ")
        if dot_ends and text == b".":
            break
        kept.append(text + b"\n")
    if kept and kept[0].startswith(b"From "):
        del kept[0]
    fields: list[bytes] = []
    for number, line in enumerate(kept):
        if line == b"\n":
            return Message(tuple(fields), b"".join(kept[number + 1 :]))
        if line[:1] in b" \t" and fields:
            fields[-1] += line
        elif _NAME.match(line):
            fields.append(line)
        else:
            return Message(tuple(fields), b"".join(kept[number:]))
    return Message(tuple(fields), b"")


def recipients(message: Message) -> list[str]:
    """All addresses of To, Cc and Bcc, or of their Resent- forms where there are any (RFC 5322 3.6.6)."""
    resent = tuple(b"resent-" + name for name in _TO)
    wanted = resent if any(_name(field) in resent for field in message.fields) else _TO
    return addresses(_value(field) for field in message.fields if _name(field) in wanted)


def addresses(texts: Iterable[str]) -> list[str]:
    """The bare addresses of address lists (RFC 5322 3.4), each once, in order.

    What is no address stands among them as it was written, for the server to refuse by name: nobody is left out in
    silence, as by email.utils, which drops address literals, and everybody for one fault.
    """
    return list(dict.fromkeys(address for text in texts for address in _listed(text) if address))


def _listed(text: str) -> Iterator[str]:
    """Elements of a list, without comments and the names of people and groups; some are empty."""
    element, closing, depth, in_angle, named = "", "", 0, False, False
    for piece in _CHARACTER.findall(text):
        if depth:
            depth += (piece == "(") - (piece == ")")
        elif closing:
            element, closing = element + piece, "" if piece == closing else closing
        elif piece == "(":
            depth = 1
        elif piece == "<" and not in_angle and not named:
            element, in_angle = "", True
        elif piece == ">" and in_angle:
            in_angle, named = False, True
        elif piece in ",;" and not in_angle:
            yield element.strip()
            element, named = "", False
        elif piece == ":" and not in_angle and not named:
            element = ""
        else:
            element, closing = element + piece, _CLOSING.get(piece, "")
    yield text.strip() if depth else element.strip()


def completed(message: Message, *, sender: str, name: str | None, now: float, message_id: str) -> Message:
    """With From, Date and Message-ID where missing, and without Bcc. ``now``: Unix seconds."""
    fields = [field for field in message.fields if _name(field) not in {b"bcc", b"resent-bcc"}]
    have = {_name(field) for field in fields}
    if b"from" not in have:
        fields.append(b"From: " + formataddr((name or "", sender)).encode("utf-8") + b"\n")
    if b"date" not in have:
        fields.append(f"Date: {formatdate(now, localtime=True)}\n".encode())
    if b"message-id" not in have:
        fields.append(f"Message-ID: {message_id}\n".encode())
    return Message(tuple(fields), message.body)


def _name(field: bytes) -> bytes:
    match = _NAME.match(field)
    return match[1].lower() if match else b""


def _value(field: bytes) -> str:
    return field.partition(b":")[2].decode("utf-8", "replace").replace("\n", "")
