"""Binary content (BODY=BINARYMIME, RFC 3030 section 3) turned into text that any server and mailbox can hold.

Content without bare CR, LF or NUL is text already and stays as it is. Otherwise the MIME parts that are not text
become base64; everything else keeps its octets. Blocking, for a thread; several times the message in memory.
"""

from __future__ import annotations

from base64 import encodebytes
from email import message_from_bytes, policy
from email.generator import BytesGenerator
from email.message import Message
from io import BytesIO

_POLICY = policy.compat32.clone(linesep="\n", max_line_length=None)


def to_text(raw: bytes) -> bytes | None:
    """Content as received (CRLF) → stored form (LF). None: it cannot be converted."""
    text = raw.replace(b"\r\n", b"\n")
    if _is_text(text, len(raw) - len(text)):
        return _ended(text)
    message = message_from_bytes(raw, policy=_POLICY)
    for part in message.walk():
        _make_text(part)
    out = BytesIO()
    BytesGenerator(out, mangle_from_=False, policy=_POLICY).flatten(message)
    converted = out.getvalue().replace(b"\r\n", b"\n")
    return _ended(converted) if _is_text(converted, converted.count(b"\n")) else None


def _is_text(text: bytes, line_ends: int) -> bool:
    return text.count(b"\n") == line_ends and b"\r" not in text and b"\0" not in text


def _ended(text: bytes) -> bytes:
    return text if not text or text.endswith(b"\n") else text + b"\n"


def _make_text(part: Message) -> None:
    """Base64 for a leaf that needs it; the label "binary" goes in any case."""
    binary = str(part.get("Content-Transfer-Encoding", "")).strip().lower() == "binary"
    payload = part.get_payload()
    if isinstance(payload, list):
        if binary:
            part.replace_header("Content-Transfer-Encoding", "8bit")
        return
    octets = str(payload).encode("ascii", "surrogateescape")
    text = octets.replace(b"\r\n", b"\n")
    if _is_text(text, len(octets) - len(text)):
        if binary:
            part.replace_header("Content-Transfer-Encoding", "7bit" if octets.isascii() else "8bit")
        return
    del part["Content-Transfer-Encoding"]
    part["Content-Transfer-Encoding"] = "base64"
    part.set_payload(encodebytes(octets).decode("ascii"))
