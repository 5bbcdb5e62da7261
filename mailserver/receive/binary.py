"""Binary content (BODY=BINARYMIME, RFC 3030 section 3) turned into text that any server and mailbox can
hold.

Content without bare CR, LF or NUL is text already and stays as it is. Otherwise the MIME parts that are not
text become base64; everything else keeps its octets. Blocking, for a thread; several times the message in
memory.
"""

from __future__ import annotations

from base64 import encodebytes
from email import message_from_bytes, policy
from email.errors import MessageError
from email.generator import BytesGenerator
from email.message import Message
from io import BytesIO

_POLICY = policy.compat32.clone(linesep="\n", max_line_length=None)
_ENCODED = frozenset({"base64", "quoted-printable", "x-uuencode", "uuencode", "x-uue", "uue"})


def to_text(raw: bytes) -> bytes | None:
    """Content as received (CRLF) → stored form (LF). None: it cannot be converted."""
    text = raw.replace(b"\r\n", b"\n")
    if _is_text(text, len(raw) - len(text)):
        return _ended(text)
    try:
        converted = _regenerated(raw)
    except (ValueError, LookupError, TypeError, AttributeError, MessageError):
        return None  # what the email package raises on content it was not made for
    return _ended(converted) if _is_text(converted, converted.count(b"\n")) else None


def _regenerated(raw: bytes) -> bytes:
    message = message_from_bytes(raw, policy=_POLICY)
    for part in message.walk():
        _make_text(part)
    out = BytesIO()
    BytesGenerator(out, mangle_from_=False, policy=_POLICY).flatten(message)
    return out.getvalue().replace(b"\r\n", b"\n")


def _is_text(text: bytes, line_ends: int) -> bool:
    return text.count(b"\n") == line_ends and b"\r" not in text and b"\0" not in text


def _ended(text: bytes) -> bytes:
    return text if not text or text.endswith(b"\n") else text + b"\n"


def _make_text(part: Message) -> None:
    """Base64 for a leaf that needs it; the label "binary" goes in any case."""
    encoding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
    octets = b"" if part.is_multipart() else part.get_payload(decode=True)
    if encoding in _ENCODED or not isinstance(octets, bytes):
        return  # text by construction; if it is not, the message is refused
    text = octets.replace(b"\r\n", b"\n")
    if not _is_text(text, len(octets) - len(text)):
        del part["Content-Transfer-Encoding"]
        part["Content-Transfer-Encoding"] = "base64"
        part.set_payload(encodebytes(octets).decode("ascii"))
    elif encoding == "binary":
        part.replace_header("Content-Transfer-Encoding", "8bit")
