"""A message's header in UTF-8 → ASCII, for clients that did not say UTF8 (RFC 6858). Pure.

Information is recoded rather than left out, as far as a conventional header can hold it: texts become encoded words
(RFC 2047), parameters RFC 2231's, domains A-labels. An address that no conventional client can write to gets one in
``.invalid`` and is shown as the name beside it. Other structured fields are kept under RFC 6857's ``Downgraded-``
names. Only the message's own header is looked at, not those of its parts. Octets that are no UTF-8 are nobody's
extension: such fields stay as they always were.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from email.utils import getaddresses, quote
from typing import Final
from urllib.parse import quote as percent

from mailserver.message.address import AddressError, parse

NOWHERE: Final = "invalid@internationalized-address.invalid"
_ADDRESSES: Final = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "resent-")
    for name in ("from", "sender", "reply-to", "to", "cc", "bcc")
)
_PARAMETERS: Final = frozenset(("content-type", "content-disposition"))
# Structured otherwise, so that an encoded word would be a lie there.
_STRUCTURED: Final = frozenset((
    "return-path", "received", "delivered-to", "message-id", "in-reply-to", "references", "resent-message-id", "date",
    "resent-date", "mime-version", "content-transfer-encoding", "content-id", "disposition-notification-to",
    "dkim-signature", "authentication-results", "list-id", "list-unsubscribe", "list-post", "original-recipient",
))  # fmt: skip
_SPACE: Final = " \t\r\n"  # not what else Unicode takes for it
_ADDRESSES_MAX: Final = 16_384  # characters; parsing them takes some 3 µs each at worst
_WORD_OCTETS: Final = (
    30  # in one encoded word, which then fits a line behind any usual name (RFC 2047 section 2)
)
_VALUE_OCTETS: Final = 54  # in one piece of a parameter
_FIELD = re.compile(rb"[^\n]*\n(?:[ \t][^\n]*(?:\n|\Z))*|[^\n]+\Z")
_NAME = re.compile(r"[!-9;-~]{1,70}\Z")
_FOLD = re.compile(r"\r?\n(?=[ \t])")
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^";]*))', re.DOTALL | re.ASCII)
_CAME_BY_SMTPUTF8 = re.compile(rb"[ \t]with[ \t\r\n]+UTF8[SL]MTP")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+\Z")


def header_end(data: bytes) -> int | None:
    """Where the empty line behind the header begins; None: not in ``data``."""
    if data.startswith((b"\n", b"\r\n")):
        return 0
    found = (data.find(b"\n\n"), data.find(b"\n\r\n"))
    return min((at + 1 for at in found if at >= 0), default=None)


def is_conventional(data: bytes) -> bool:
    """Whether the message ``data`` is for everybody as it is: nothing has to be converted.

    Only what came by SMTPUTF8 is internationalized mail; its trace says so (RFC 6531 4.3). Octets beyond ASCII in any
    other header are a fault that has always been passed on, byte for byte, for the sake of signatures.
    """
    if data.isascii():
        return True
    header = data[: header_end(data)]
    return header.isascii() or not _CAME_BY_SMTPUTF8.search(header)


def to_ascii(header: bytes) -> bytes:
    """``header``, whole fields, with its line ends, LF or CRLF. Fields in ASCII keep their octets. Takes up to 50 ms:
    use a thread."""
    return b"".join(map(_field, _FIELD.findall(header)))


def _field(field: bytes) -> bytes:
    if field.isascii():
        return field
    try:
        text = field.decode()
    except UnicodeDecodeError:
        return field
    end = "\r\n" if text.endswith("\r\n") else "\n"
    name, colon, value = text.rstrip("\r\n").partition(":")
    value = _FOLD.sub("", value).strip(_SPACE)
    if not colon or not _NAME.match(name):
        name, value = "Downgraded", text.strip(_SPACE)
    body = _converted(name.lower(), value)
    if body is None:
        name, body = f"Downgraded-{name}", _words(value)
    return f"{name}: {body}\n".replace("\n", end).encode("ascii")


def _converted(name: str, value: str) -> str | None:
    """Folded with LF; None: this field has no such form."""
    if name in _ADDRESSES:
        return _mailboxes(value)
    if name in _PARAMETERS:
        with_codes = _PARAMETER.sub(_parameter, value)
        return with_codes if with_codes.isascii() else None
    return None if name in _STRUCTURED else _words(value)


def _words(text: str) -> str:
    """Encoded words; the white space between them is not part of the text."""
    pieces = _pieces(((c, c.encode()) for c in text), _WORD_OCTETS)
    return "\n ".join(f"=?utf-8?B?{b64encode(piece.encode()).decode()}?=" for piece in pieces)


def _pieces(parts: Iterator[tuple[str, bytes]], most: int) -> Iterator[str]:
    """Whole characters, put together to at most ``most`` octets."""
    piece, size = "", 0
    for part, octets in parts:
        if size + len(octets) > most:
            yield piece
            piece, size = "", 0
        piece += part
        size += len(octets)
    if piece:
        yield piece


def _mailboxes(value: str) -> str | None:
    """RFC 6858 section 2.1. Groups lose their names."""
    if len(value) > _ADDRESSES_MAX:
        return None
    try:
        return ",\n ".join([_mailbox(*found) for found in getaddresses([value])])
    except (
        AddressError,
        RecursionError,
        ValueError,
        IndexError,
    ):  # the email package's, for what is no address
        return None


def _mailbox(name: str, written: str) -> str:
    address = written
    if not written.isascii():
        parsed = parse(written)
        address = str(parsed)
        if not address.isascii():
            name, address = f"{name} {written}".strip(), NOWHERE
    elif "@" not in written:
        raise AddressError("no address")
    return f"{_phrase(name)} <{address}>" if name else address


def _phrase(name: str) -> str:
    if _ATOMS.match(name):
        return name
    return f'"{quote(name)}"' if name.isascii() and name.isprintable() else _words(name)


def _parameter(match: re.Match[str]) -> str:
    """RFC 2231 sections 3 and 4; one that is coded already and still not ASCII cannot be mended."""
    if match[0].isascii():
        return match[0]
    name, quoted, bare = match.groups()
    if not name.isascii() or "*" in name:
        return ""
    value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare.strip(_SPACE)
    coded = ((one, one.encode()) for one in (percent(c, safe="") for c in value))
    pieces = list(_pieces(coded, _VALUE_OCTETS))
    pieces[0] = "utf-8''" + pieces[0]
    if len(pieces) == 1:
        return f";\n {name}*={pieces[0]}"
    return "".join(f";\n {name}*{n}*={piece}" for n, piece in enumerate(pieces))
