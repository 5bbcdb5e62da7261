"""A command line's octets → verb and argument (RFC 5321 4.1.1, 4.5.3.1.4), or what is wrong with them.
Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from mailserver import reply
from mailserver.reply import Reply

COMMAND_MAX = 510  # octets without CRLF, RFC 5321 4.5.3.1.4
LINE_MAX = 12_288  # longest line of all, an authentication response (RFC 4954 4)
EXTENDED_MAX = {
    "MAIL": 510 + 26 + 17 + 10 + 500 + 9 + 107,  # RFC 1870, 6152, 6531, 4954, 3461 each add to it
    "RCPT": 510 + 28 + 507,  # RFC 3461 5.1
    "AUTH": LINE_MAX,
}
_REMEMBERED_MAX = 200  # octets of a line worth remembering
_SECRET = b"aA" + bytes(octet for octet in range(256) if not bytes([octet]).isalpha())  # "AUTH …" begins so
_LOGIN = re.compile(r"[^A-Za-z]*AUTH(\s*\S*)", re.IGNORECASE)
_CHUNK = re.compile(r"[\0-\x20]*BDAT", re.IGNORECASE)


class Line(NamedTuple):
    """``verb`` in upper case; ``text`` the whole line, for events, of what might be AUTH without its secret;
    ``fault`` the reply when it is no command."""

    verb: str
    argument: str
    text: str
    fault: Reply | None = None


def understand(line: bytes) -> Line:
    """One line without its LF, so it must end with CR."""
    text = line.decode("utf-8", "replace")
    verb, _, argument = text.rstrip("\r").partition(" ")
    verb = verb.upper()
    fault = _fault(line, verb)
    if _CHUNK.match(text) and (fault is not None or verb != "BDAT"):
        # What follows may be content, so it must not be read as commands.
        return Line("", "", "", (fault or reply.UNKNOWN_COMMAND)._replace(close=True))
    if fault is not None:
        return Line("", "", "", fault)
    login = _LOGIN.match(text)
    return Line(verb, argument, text[:-1] if login is None else "AUTH" + login[1].rstrip())


def _fault(line: bytes, verb: str) -> Reply | None:
    if len(line) - 1 > EXTENDED_MAX.get(verb, COMMAND_MAX):
        return reply.LINE_TOO_LONG
    if not line or line.find(b"\r") != len(line) - 1:
        return reply.BARE_LINE_END
    content = line[:-1]
    if any(octet < 32 or octet == 127 for octet in content):
        return reply.BAD_OCTETS
    if content.isascii():
        return None
    # Only addresses may be outside ASCII (RFC 6531 3.3); whether these may is decided with the transaction.
    return None if verb in ("MAIL", "RCPT", "VRFY") and _is_utf8(content) else reply.BAD_OCTETS


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


_remembered = lru_cache(maxsize=2048)(understand)


def recall(line: bytes) -> Line:
    """``understand``, remembering short lines; those that may hold a password ("AUTH …", " AUTH …") are never
    kept."""
    if len(line) > _REMEMBERED_MAX or line[:1] in _SECRET:
        return understand(line)
    return _remembered(line)
