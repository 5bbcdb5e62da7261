"""Binary content (BODY=BINARYMIME, RFC 3030 section 3) turned into text that any server and mailbox can
hold.

Content without bare CR, LF or NUL is text already and stays as it is. Otherwise the MIME parts that are not
text become base64; everything else keeps its octets. Whole parts are cut out, never lines, and there are
bounds for what a hostile message could make expensive. Blocking, for a thread; some three times the message
in memory.
"""

from __future__ import annotations

import re
from base64 import encodebytes
from email.errors import MessageError
from email.message import Message
from email.parser import BytesHeaderParser

PARTS_MAX = 10_000  # MIME parts of one message
LOOKALIKES_MAX = 100_000  # lines that only begin like a delimiter; parts in parts look at them again
DEPTH_MAX = 30  # parts within parts
HEADER_MAX = 65_536  # octets of one part's header
TYPE_MAX = 1_000  # octets of a Content-Type; reading its parameters takes quadratic time
_BOUNDARY_MAX = 200  # octets; RFC 2046 5.1.1 allows 70
_SLICE = 57 * 4096  # octets encoded at once, whole lines of base64
_ENCODED = frozenset({"base64", "quoted-printable", "x-uuencode", "uuencode", "x-uue", "uue"})
_MESSAGES = frozenset({"message/rfc822", "message/global"})  # may not be encoded themselves, RFC 2046 5.2.1
_ENCODING = re.compile(
    rb"^content-transfer-encoding[ \t]*:[^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n", re.IGNORECASE | re.MULTILINE
)
_BASE64 = b"Content-Transfer-Encoding: base64\r\n"
_EIGHT_BIT = b"Content-Transfer-Encoding: 8bit\r\n"
_HEADERS = BytesHeaderParser()


def to_text(raw: bytes) -> bytes | None:
    """Content as received (CRLF) → stored form (LF). None: it cannot be converted."""
    if _is_text(raw, 0, len(raw)):
        return _ended(raw.replace(b"\r\n", b"\n"))
    conversion = _Conversion(raw)
    try:
        conversion.entity(0, len(raw), 0)
    except (ValueError, LookupError, TypeError, AttributeError, MessageError):
        return None  # too complex, or what the email package raises on headers it was not made for
    converted = b"".join(conversion.out)
    return None if b"\r" in converted or b"\0" in converted else _ended(converted)


class _Conversion:
    """One walk through the parts; ``out`` collects the stored form in order. Raises ValueError at a bound."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._parts = self._lookalikes = 0
        self.out: list[bytes] = []

    def entity(self, start: int, end: int, depth: int) -> None:
        """A message or body part: header, blank line, body."""
        self._parts += 1
        if self._parts > PARTS_MAX or depth > DEPTH_MAX:
            raise ValueError("too many parts")
        body = self._body(start, end)
        header = self._raw[start:body]
        fields = _HEADERS.parsebytes(header)
        encoding = str(fields.get("Content-Transfer-Encoding", "")).strip().lower()
        boundary = _boundary(fields)
        composite = encoding not in _ENCODED and (
            boundary is not None or fields.get_content_type() in _MESSAGES
        )
        if not composite and encoding not in _ENCODED and not _is_text(self._raw, body, end):
            self._copy(_ENCODING.sub(b"", header[:-2]) + _BASE64 + header[-2:])
            for position in range(body, end, _SLICE):
                self.out.append(encodebytes(self._raw[position : min(position + _SLICE, end)]))
            self.out[-1] = self.out[-1][:-1]  # the last line end belongs to the delimiter
            return
        self._copy(_ENCODING.sub(_EIGHT_BIT, header) if encoding == "binary" else header)
        if not composite:
            self._copy(self._raw[body:end])
        elif boundary is None:
            self.entity(body, end, depth + 1)
        else:
            self._multipart(body, end, b"\r\n--" + boundary, depth + 1)

    def _body(self, start: int, end: int) -> int:
        raw = self._raw
        if raw.startswith(b"\r\n", start, end):
            return start + 2
        blank = raw.find(b"\r\n\r\n", start, min(end, start + HEADER_MAX))
        if blank >= 0:
            return blank + 4
        if end - start > HEADER_MAX:
            raise ValueError("header too large")
        return end

    def _copy(self, octets: bytes) -> None:
        self.out.append(octets.replace(b"\r\n", b"\n"))

    def _multipart(self, start: int, end: int, delimiter: bytes, depth: int) -> None:
        """RFC 2046 5.1.1: preamble, parts between delimiter lines, epilogue."""
        raw, done, search, within = self._raw, start, start - 2, False
        while (at := raw.find(delimiter, search, end)) >= 0:
            after = at + len(delimiter)
            closes = raw.startswith(b"--", after, end)
            line_end = raw.find(b"\r\n", after, end)
            line_end = end if line_end < 0 else line_end
            if raw[after + 2 * closes : line_end].strip(b" \t"):
                search = after  # a longer boundary, another one
                self._lookalikes += 1
                if self._lookalikes > LOOKALIKES_MAX:
                    raise ValueError("too many lines like delimiters")
                continue
            self._piece(done, at, depth, part=within)
            search, within = line_end, not closes
            self._copy(raw[max(at, done) : min(line_end + 2, end)])
            done = min(line_end + 2, end)
            if closes:
                break
        self._piece(done, end, depth, part=within)

    def _piece(self, start: int, end: int, depth: int, *, part: bool) -> None:
        if part and end > start:
            self.entity(start, end, depth)
        elif end > start:
            self._copy(self._raw[start:end])


def _boundary(fields: Message) -> bytes | None:
    """Of a multipart with a usable one. Raises ValueError."""
    if len(str(fields.get("Content-Type", ""))) > TYPE_MAX:
        raise ValueError("Content-Type too long")
    if fields.get_content_maintype() != "multipart":
        return None
    boundary = (fields.get_boundary() or "").encode("ascii")
    return boundary if 0 < len(boundary) <= _BOUNDARY_MAX else None


def _is_text(raw: bytes, start: int, end: int) -> bool:
    line_ends = raw.count(b"\r\n", start, end)
    alone = raw.count(b"\n", start, end) != line_ends or raw.count(b"\r", start, end) != line_ends
    return not alone and raw.find(b"\0", start, end) < 0


def _ended(text: bytes) -> bytes:
    return text if not text or text.endswith(b"\n") else text + b"\n"
