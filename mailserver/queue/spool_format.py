"""The bytes of a spool file and of its progress file: written and read here, and nowhere else. Pure.

    content                  octets as they will be sent, LF line ends
    envelope                 JSON of message.envelope.Envelope
    trailer, 64 octets       LF "MAILSPOOL1" SP content-length SP envelope-length
                             SP crc32(content) SP crc32(rest) LF

Lengths and sums are lower-case hexadecimal of fixed width; ``rest`` is the envelope and the trailer up to
its last space, so any flipped bit in any octet of the file is found. The file is written front to back: one
that lacks its last octet is not whole. A progress file is the same with an empty content, and Progress
instead of Envelope.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar
from zlib import crc32

import msgspec

from mailserver.message.envelope import Envelope, State

T = TypeVar("T")

TRAILER = 64
_MAGIC = b"\nMAILSPOOL1 "
_TRAILER = re.compile(rb"\nMAILSPOOL1 ([0-9a-f]{16}) ([0-9a-f]{16}) ([0-9a-f]{8}) ([0-9a-f]{8})\n")
_ENVELOPE_MAX = 1 << 26  # octets; 1,000 recipients need far less than 1 MiB


class SpoolDamaged(Exception):  # noqa: N818 - says what is the matter with the file
    """The file is not what was written; ``str()`` says how, without text from inside the file."""


class RecipientProgress(msgspec.Struct, array_like=True):
    """What became of the recipient ``id`` of the envelope."""

    id: int
    state: State
    last_reply: str
    status: str
    delay_notified: bool


class Progress(msgspec.Struct):
    """``due``: Unix seconds of the next attempt. ``accepted``: as in the envelope, where a clock that was set has moved
    it since (queue/clock.py); None: written before there was this field."""

    attempts: int
    due: float
    held: bool
    recipients: list[RecipientProgress]
    accepted: float | None = None


class Tail(NamedTuple):
    """What the trailer says: ``content`` and ``record`` are lengths, ``crc`` is the content's CRC-32."""

    content: int
    record: int
    crc: int


_encode = msgspec.json.Encoder().encode
_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_progress = msgspec.json.Decoder(Progress).decode


def seal(record: Envelope | Progress, length: int, crc: int) -> bytes:
    """What follows ``length`` octets of content with CRC-32 ``crc``: the record and the trailer."""
    text = _encode(record)
    head = b"%s%s%016x %016x %08x" % (text, _MAGIC, length, len(text), crc)
    return b"%s %08x\n" % (head, crc32(head))


def read_trailer(data: bytes, size: int) -> Tail:
    """The trailer at the end of ``data``, the end of a file of ``size`` octets. Raises SpoolDamaged."""
    match = _TRAILER.fullmatch(data[-TRAILER:])
    if not match:
        raise SpoolDamaged("no trailer: the file is not whole")
    tail = Tail(int(match[1], 16), int(match[2], 16), int(match[3], 16))
    if tail.content + tail.record + TRAILER != size or tail.record > _ENVELOPE_MAX:
        raise SpoolDamaged("the lengths do not add up")
    return tail


def read_envelope(data: bytes, tail: Tail, id: str) -> Envelope:
    """The envelope from the end of ``data``, at least envelope and trailer. Raises SpoolDamaged."""
    envelope = _unseal(data, tail, _decode_envelope)
    if envelope.id != id:
        raise SpoolDamaged("the envelope is another message's")
    if envelope.size != tail.content:
        raise SpoolDamaged("the envelope states another size")
    return envelope


def read_progress(data: bytes) -> Progress:
    """A whole progress file. Raises SpoolDamaged."""
    return _unseal(data, read_trailer(data, len(data)), _decode_progress)


def apply(progress: Progress, envelope: Envelope) -> None:
    """Put what became of each recipient into ``envelope``; those that progress does not name stay pending."""
    if progress.accepted is not None:
        envelope.accepted = progress.accepted
    known = {recipient.id: recipient for recipient in progress.recipients}
    for recipient in envelope.recipients:
        if (now := known.get(recipient.id)) is not None:
            recipient.state, recipient.last_reply, recipient.status = now.state, now.last_reply, now.status
            recipient.delay_notified = now.delay_notified


def progress_of(envelope: Envelope, *, attempts: int, due: float, held: bool) -> Progress:
    """The other way round."""
    return Progress(
        attempts,
        due,
        held,
        [
            RecipientProgress(r.id, r.state, _clean(r.last_reply), r.status, r.delay_notified)
            for r in envelope.recipients
        ],
        envelope.accepted,
    )


def _clean(text: str) -> str:
    """What a host said may hold octets that are no UTF-8; JSON may not."""
    return text.encode("utf-8", "replace").decode()


def _unseal(data: bytes, tail: Tail, decode: Callable[[bytes], T]) -> T:
    rest = data[-TRAILER - tail.record :]
    if crc32(rest[:-10]) != int(rest[-9:-1], 16):
        raise SpoolDamaged("the envelope is damaged")
    try:
        return decode(rest[: tail.record])
    except msgspec.MsgspecError:
        raise SpoolDamaged("the envelope is of another version") from None
