"""Delivery status notifications, composed by hand: multipart/report (RFC 3461, 3462, 3464, 6533).

Pure: the same arguments give the same octets. The result is a whole message with LF line ends whose own parts
are 7-bit; only a message returned whole (RET=FULL) brings its octets as they are. The original is never
parsed: it is cut at its first empty line, no more. Whatever a remote host or a sender wrote is stripped of
control characters and folded before it enters a field, so no reply can forge one.
"""

from __future__ import annotations

import re
from binascii import b2a_qp
from collections.abc import Sequence
from email.utils import formatdate
from textwrap import wrap
from typing import Literal

from mailserver.message.envelope import Delivered, Envelope, Failed, Local, Outcome, Recipient

Kind = Literal["failure", "delay", "success"]

FULL_MAX = 1 << 20  # octets of original returned where RET=FULL asks for it
DEFAULT_MAX = 64 << 10  # octets of original returned where the sender did not say
HEADERS_MAX = 64 << 10  # octets of headers returned
_LINE_MAX = 998  # RFC 5322 2.1.1
_FOLD = 76
_DIAGNOSTIC_MAX = 2000  # characters of one reply
_LISTED_MAX = 100  # recipients named in the human part; the machine's part names all

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_SMTP_REPLY = re.compile(r"[245]\d\d(?:[ -]|$)")
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\Z")
_LONG_LINE = re.compile(rb"[^\n]{%d}" % (_LINE_MAX + 1))


def wants_report(recipient: Recipient, kind: Kind, sender: str | None) -> bool:
    """Whether NOTIFY asks for such a report (RFC 3461 4.1, 6.2); nobody reports to the null sender."""
    if sender is None:
        return False
    if not recipient.notify:
        return kind != "success"
    return kind.upper() in recipient.notify


def original_limit(envelope: Envelope, kind: Kind) -> int:
    """How many octets of the original ``compose`` can use: all of it, or the beginning with its headers.

    RET speaks of failures only; other reports return headers (RFC 3461 4.3). A message too large to be
    returned whole is returned as headers.
    """
    most = {"FULL": FULL_MAX, "HDRS": 0}.get((envelope.ret or "").upper(), DEFAULT_MAX)
    return envelope.size if kind == "failure" and envelope.size <= most else HEADERS_MAX


def compose(
    envelope: Envelope,
    recipients: Sequence[tuple[Recipient, Outcome]],
    *,
    kind: Kind,
    original: bytes,
    hostname: str,
    id: str,
    now: float,
    will_retry_until: float | None = None,
) -> bytes:
    """The report about ``recipients`` to ``envelope.sender``, which must not be null.

    ``original``: the stored message, or at least its first ``original_limit`` octets. ``id``: the queue id of
    the report itself. ``now``, ``will_retry_until``: Unix seconds.
    """
    assert envelope.sender is not None, "no report goes to the null sender"
    human = _human_part(envelope, recipients, kind, hostname, now, will_retry_until)
    status = _status_part(envelope, recipients, kind, hostname, now, will_retry_until)
    returned = _returned_part(envelope, kind, original)
    parts = (human, status, returned)
    boundary = _boundary(id, parts)
    head = "".join(
        (
            _field("From", f"Mail Delivery System <MAILER-DAEMON@{hostname}>"),
            _field("To", f"<{_text(envelope.sender)}>"),
            _field("Subject", _SUBJECTS[kind]),
            _field("Date", formatdate(now, localtime=True)),
            _field("Message-ID", f"<{id}.{kind}@{hostname}>"),
            "Auto-Submitted: auto-replied\n",
            "MIME-Version: 1.0\n",
            "" if all(map(bytes.isascii, parts)) else "Content-Transfer-Encoding: 8bit\n",  # RFC 2045 6.4
            f'Content-Type: multipart/report; report-type=delivery-status;\n\tboundary="{boundary}"\n',
            "\nThis is a delivery status notification in MIME format (RFC 3464).\n",
        )
    ).encode()
    mark = f"\n--{boundary}".encode()
    return head + b"".join(mark + b"\n" + part for part in parts) + mark + b"--\n"


# ---- for people -----------------------------------------------------------------------------------
_SUBJECTS: dict[Kind, str] = {
    "failure": "Your message could not be delivered",
    "delay": "Your message is delayed",
    "success": "Your message was delivered",
}
_OPENINGS: dict[Kind, str] = {
    "failure": "Your message was not delivered to the recipients below. It will not be tried again.",
    "delay": "Your message has not been delivered to the recipients below yet. You need not do\n"
    "anything and should not send it again: we keep trying",
    "success": "Your message has arrived at the recipients below, as you asked to be told.",
}
_ADVICE: dict[Kind, str] = {
    "failure": "What you can do: check each address for typing errors and read the reason below it; what\n"
    "follows \"said\" was written by the system that refused the message. Then send the message\n"
    "again, or reach the recipient by other means. If that does not help, show this report to\n"
    "your postmaster.",
    "delay": "What you can do: nothing, unless it is urgent. You will be told if we have to give up.",
    "success": "Where it says \"relayed\" the message was handed to a system that sends no such reports;\n"
    "you may hear no more about it.",
}  # fmt: skip


def _human_part(
    envelope: Envelope,
    recipients: Sequence[tuple[Recipient, Outcome]],
    kind: Kind,
    hostname: str,
    now: float,
    until: float | None,
) -> bytes:
    lines = [f"This is the mail system at {hostname}.", "", _OPENINGS[kind]]
    if kind == "delay":
        lines[-1] += f"\nuntil {formatdate(until, localtime=True)}." if until else "."
    lines += ["", _ADVICE[kind], ""]
    for recipient, outcome in recipients[:_LISTED_MAX]:
        lines.append(f"<{_text(recipient.address)}>")
        if recipient.alias:
            lines.append(f"    (your message was addressed to <{_text(recipient.alias)}>)")
        by = _speaker(outcome)
        word = f"{_action(recipient, kind)}; " if kind == "success" else ""
        if isinstance(outcome, Failed) and outcome.status.startswith(
            "4"
        ):  # nobody refused it: it grew too old
            word = f"given up after {_span(now - envelope.accepted)}, at last: "
        lines += [_folded(f"    {word}{by}{_text(outcome.reply, _DIAGNOSTIC_MAX)}", "    "), ""]
    if len(recipients) > _LISTED_MAX:
        lines += [f"... and {len(recipients) - _LISTED_MAX} more, see the attached report.", ""]
    sent = formatdate(envelope.accepted, localtime=True)
    lines.append(f"We took your message on {sent}, {_ago(now - envelope.accepted)}, as {envelope.id}.")
    text = ("\n".join(lines) + "\n").encode()
    if text.isascii():
        return b"Content-Type: text/plain; charset=us-ascii\n\n" + text
    return b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n" + _qp(
        text
    )


def _speaker(outcome: Outcome) -> str:
    """Who said it: the remote host, or we about the remote host, or we."""
    if not outcome.remote:
        return ""
    return f"{_text(outcome.remote)}{' said' if _SMTP_REPLY.match(outcome.reply) else ''}: "


def _ago(seconds: float) -> str:
    return "just now" if seconds < 60 else f"{_span(seconds)} ago"


def _span(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds // length)) > 0:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"


# ---- for programs (RFC 3464 2) --------------------------------------------------------------------
def _status_part(
    envelope: Envelope,
    recipients: Sequence[tuple[Recipient, Outcome]],
    kind: Kind,
    hostname: str,
    now: float,
    until: float | None,
) -> bytes:
    fields = [
        "Content-Type: message/delivery-status\n\n",
        _field("Original-Envelope-Id", _ascii(decode_xtext(envelope.envid))) if envelope.envid else "",
        _field("Reporting-MTA", f"dns; {hostname}"),
        _field("Arrival-Date", formatdate(envelope.accepted, localtime=True)),
    ]
    for recipient, outcome in recipients:
        fields.append("\n")
        if recipient.orcpt:
            address_type, _, address = recipient.orcpt.partition(";")
            if not address:
                address_type, address = "rfc822", recipient.orcpt
            if address_type.lower() != "utf-8":
                address = decode_xtext(address)
            fields.append(_field("Original-Recipient", _typed(address, address_type)))
        fields.append(_field("Final-Recipient", _typed(recipient.address, "rfc822")))
        fields.append(_field("Action", _action(recipient, kind)))
        fields.append(_field("Status", _status(outcome, kind)))
        reply = _ascii(outcome.reply, _DIAGNOSTIC_MAX)
        smtp = outcome.remote and _SMTP_REPLY.match(reply)
        if smtp:  # RFC 3464 2.3.5: the MTA that reported the status; a host that never answered reported none
            fields.append(_field("Remote-MTA", f"dns; {_mta(_ascii(outcome.remote))}"))
        if reply:
            fields.append(_field("Diagnostic-Code", f"{'smtp' if smtp else 'x-mailserver'}; {reply}"))
        if not (kind == "success" and isinstance(recipient.route, Local)):
            fields.append(_field("Last-Attempt-Date", formatdate(now, localtime=True)))
        if kind == "delay" and until is not None:
            fields.append(_field("Will-Retry-Until", formatdate(until, localtime=True)))
    return "".join(fields).encode()


def _mta(remote: str) -> str:
    """``mx.example.org[192.0.2.1]:25`` → a domain name, or an address literal (RFC 3464 2.1.2)."""
    name, _, rest = remote.partition(" ")[0].partition("[")
    if name and name != rest.partition("]")[0]:
        return name
    return f"[IPv6:{name}]" if ":" in name else f"[{name}]"


def _action(recipient: Recipient, kind: Kind) -> str:
    """RFC 3464 2.3.3. "relayed": to a system that will not report; "delivered": into a mailbox of ours."""
    if kind == "success":
        return "delivered" if isinstance(recipient.route, Local) else "relayed"
    return "failed" if kind == "failure" else "delayed"


def _status(outcome: Outcome, kind: Kind) -> str:
    """The actual problem's code, also when time ran out (RFC 3463 3.5 on X.4.7)."""
    if isinstance(outcome, Delivered):
        return "2.0.0"
    if _STATUS.match(outcome.status):
        return outcome.status
    return "5.0.0" if kind == "failure" else "4.0.0"


def _typed(address: str, address_type: str) -> str:
    """``rfc822; a@b``; a non-ASCII address as ``utf-8;`` in its 7-bit form (RFC 6533 3, utf-8-addr-xtext)."""
    address = _text(address)
    if address.isascii():
        return f"{_ascii(address_type) or 'rfc822'}; {address}"
    encoded = "".join(
        c if "\x21" <= c <= "\x7e" and c not in "+=\\" else f"\\x{{{ord(c):02X}}}" for c in address
    )
    return f"utf-8; {encoded}"


def decode_xtext(text: str) -> str:
    """RFC 3461 4: ``+3D`` → ``=``. What is malformed stays as it is."""
    return _XTEXT.sub(lambda m: chr(int(m[1], 16)), text)


# ---- the original (RFC 3462 2) --------------------------------------------------------------------
def _returned_part(envelope: Envelope, kind: Kind, original: bytes) -> bytes:
    if len(original) == envelope.size == original_limit(envelope, kind) and _may_stand_whole(original):
        if original.isascii():
            return b"Content-Type: message/rfc822\n\n" + original
        media = "message/global" if envelope.smtputf8 else "message/rfc822"
        return f"Content-Type: {media}\nContent-Transfer-Encoding: 8bit\n\n".encode() + original
    return headers_part(original)


def headers_part(original: bytes) -> bytes:
    """The part that returns the headers of ``original`` alone, in ASCII."""
    headers = _headers(original)
    if headers.isascii() and _may_stand_whole(headers):
        return b"Content-Type: text/rfc822-headers\n\n" + headers
    charset = "" if headers.isascii() else "; charset=unknown-8bit"
    media = f"text/rfc822-headers{charset}"
    if not headers.isascii() and _is_utf8(headers):
        media = "message/global-headers"
    return f"Content-Type: {media}\nContent-Transfer-Encoding: quoted-printable\n\n".encode() + _qp(headers)


def _headers(original: bytes) -> bytes:
    """Up to the first empty line, whole lines, at most HEADERS_MAX octets."""
    end = 0 if original.startswith(b"\n") else original.find(b"\n\n") + 1
    if end == 0 and not original.startswith(b"\n"):
        end = len(original)
    if end > HEADERS_MAX:
        end = original.rfind(b"\n", 0, HEADERS_MAX) + 1 or HEADERS_MAX
    return original[:end]


def _may_stand_whole(content: bytes) -> bool:
    """Whether it may travel as it is: no NUL, no bare CR, no line over 998 octets (RFC 2045 2.8)."""
    return not (b"\0" in content or b"\r" in content or _LONG_LINE.search(content))


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _qp(content: bytes) -> bytes:
    """Quoted-printable that says where lines end by LF; CR is an ordinary octet here."""
    return b"\n".join(b2a_qp(line, quotetabs=False, istext=False) for line in content.split(b"\n"))


# ---- fields ---------------------------------------------------------------------------------------
def _boundary(id: str, parts: Sequence[bytes]) -> str:
    """A line that no part contains (RFC 2046 5.1.1); found, not hoped for."""
    number = 0
    while any(f"=_{id}.{number}".encode() in part for part in parts):
        number += 1
    return f"=_{id}.{number}"


def _text(value: str, most: int = _LINE_MAX) -> str:
    """Outside text; runs of control characters become one space."""
    return _CONTROLS.sub(" ", value[:most]).strip()


def _ascii(value: str, most: int = 500) -> str:
    return _text(value, most).encode("ascii", "replace").decode()


def _field(name: str, value: str) -> str:
    return _folded(f"{name}: {value}", " ") + "\n"


def _folded(line: str, indent: str) -> str:
    """Broken at spaces where possible, so that few lines exceed 76 characters and none 998 octets."""
    most = _LINE_MAX - 8 if line.isascii() else _LINE_MAX // 4 - 8  # UTF-8 takes up to four octets for one
    margin = line[: len(line) - len(line.lstrip(" "))]
    wrapped = wrap(line[len(margin) :], _FOLD, initial_indent=margin, subsequent_indent=indent,
                   break_long_words=False, break_on_hyphens=False)  # fmt: skip
    return "\n".join(f"\n{indent}".join(_pieces(piece, most)) for piece in wrapped)


def _pieces(text: str, most: int) -> list[str]:
    return [text[i : i + most] for i in range(0, len(text), most)]
