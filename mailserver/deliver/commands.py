"""The command lines of a transaction, with what the peer offers (RFC 5321 4.1.1, 1870, 6152, 6531, 3461).

Addresses go out exactly as the envelope has them: they were parsed once, when they came in.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailserver.message.envelope import Envelope, Recipient

Extensions = Mapping[str, str]  # EHLO keyword in upper case → its parameters


def mail(envelope: Envelope, offered: Extensions, *, size: int, eight_bit: bool, utf8: bool) -> bytes:
    """``MAIL FROM:<…> SIZE=…\\r\\n``. ``size`` in octets on the wire, an estimate (RFC 1870 5)."""
    line = f"MAIL FROM:<{envelope.sender or ''}>"
    if "SIZE" in offered:
        line += f" SIZE={size}"
    if eight_bit and "8BITMIME" in offered:
        line += " BODY=8BITMIME"
    if utf8:
        line += " SMTPUTF8"
    if "DSN" in offered:
        if envelope.ret:
            line += f" RET={envelope.ret}"
        if envelope.envid:
            line += f" ENVID={envelope.envid}"
    return _line(line)


def rcpt(recipient: Recipient, offered: Extensions) -> bytes:
    """``RCPT TO:<…>\\r\\n``; NOTIFY and ORCPT as they came, when the peer takes them (RFC 3461 5.2.1)."""
    if "DSN" not in offered or not (recipient.notify or recipient.orcpt):
        return _line(f"RCPT TO:<{recipient.address}>")
    line = f"RCPT TO:<{recipient.address}>"
    if recipient.notify:
        line += f" NOTIFY={','.join(recipient.notify)}"
    if recipient.orcpt:
        line += f" ORCPT={seven_bit(recipient.orcpt)}"
    return _line(line)


def seven_bit(orcpt: str) -> str:
    """It is encoded already, as it came; only what stands there in UTF-8 takes the \\x{…} form (RFC 6533 3)."""
    if orcpt.isascii():
        return orcpt
    return "".join(c if c.isascii() else f"\\x{{{ord(c):X}}}" for c in orcpt)


def _line(text: str) -> bytes:
    """Raises ValueError when a character would end the line early: no parsed address contains one."""
    if "\r" in text or "\n" in text or "\0" in text:
        raise ValueError(f"control character in {text!r}")
    return text.encode() + b"\r\n"
