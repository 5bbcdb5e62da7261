"""The POP3 wire without I/O: octets in, commands out (RFC 1939, 2449, 2595, 5034, 6856).

``Reader.feed`` takes whatever the network gave; ``Reader.next`` hands out one command after the other, so a
pipelined batch is answered in order and a command that must wait simply stops the asking. However the input
is cut, the same commands come out. What the client did wrong is a value (``BadLine``) or, once a command
runs, a ``Refused``; nothing else is ever raised for input. Replies never repeat a client's octets.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

COMMAND_MAX: Final = 255  # octets of a command with its CRLF, RFC 2449 section 4
LINE_MAX: Final = (
    12288  # octets of a line that answers a SASL challenge (and of AUTH with its initial response)
)


class State(StrEnum):
    """RFC 1939 section 3. UPDATE is entered by QUIT only; a dropped connection never sees it."""

    AUTHORIZATION = "authorization"
    TRANSACTION = "transaction"
    UPDATE = "update"


_A = (State.AUTHORIZATION,)
_T = (State.TRANSACTION,)
_ANY = (State.AUTHORIZATION, State.TRANSACTION)


class Row(NamedTuple):
    """One line of the command table: where the command is valid and how many arguments it takes."""

    verb: str
    states: tuple[State, ...]
    least: int
    most: int


class Command(NamedTuple):
    """A command that is valid in its state and has the right number of arguments."""

    verb: str
    args: list[bytes]


class BadLine(NamedTuple):
    """What is answered instead of a command; after a ``fatal`` one nothing more is read."""

    reply: bytes
    fatal: bool = False


COMMANDS: Final[dict[bytes, Row]] = {
    b"APOP": Row("APOP", _A, 2, 2),
    b"AUTH": Row("AUTH", _A, 0, 2),
    b"CAPA": Row("CAPA", _ANY, 0, 0),
    b"DELE": Row("DELE", _T, 1, 1),
    b"LANG": Row("LANG", _ANY, 0, 1),
    b"LAST": Row("LAST", _T, 0, 0),
    b"LIST": Row("LIST", _T, 0, 1),
    b"NOOP": Row("NOOP", _T, 0, 0),
    b"PASS": Row("PASS", _A, 1, 1),
    b"QUIT": Row("QUIT", _ANY, 0, 0),
    b"RETR": Row("RETR", _T, 1, 1),
    b"RSET": Row("RSET", _T, 0, 0),
    b"STAT": Row("STAT", _T, 0, 0),
    b"STLS": Row("STLS", _A, 0, 0),
    b"TOP": Row("TOP", _T, 2, 2),
    b"UIDL": Row("UIDL", _T, 0, 1),
    b"USER": Row("USER", _A, 1, 1),
    b"UTF8": Row("UTF8", _A, 0, 0),
}

OK: Final = b"+OK\r\n"
# RFC 6856 section 3.2: a tag, and what the language calls itself. All our texts are English.
LANGUAGES: Final = b"+OK languages follow\r\nen English\r\ni-default Default language\r\n.\r\n"
TERMINATOR: Final = b".\r\n"


def error(text: str) -> bytes:
    """An -ERR reply; ``text`` is ours, with its response code in front where RFC 2449 or 3206 has one."""
    return f"-ERR {text}\r\n".encode()


class Refused(Exception):  # noqa: N818 - what happened, caught in one place
    """A command that cannot be obeyed; ``reply`` says why. If it ``counts``, it costs the client one of its
    errors."""

    def __init__(self, text: str, *, counts: bool = True) -> None:
        super().__init__(text)
        self.reply = error(text)
        self.counts = counts


UNKNOWN: Final = BadLine(error("unknown command"))
FOREIGN: Final = BadLine(error("this is POP3"), fatal=True)
_HTTP: Final = frozenset(
    (b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS", b"DELETE", b"PATCH", b"PRI")
)
_TLS: Final = b"\x16\x03"  # how a TLS handshake begins
WRONG_STATE: Final = {
    State.AUTHORIZATION: BadLine(error("log in first")),
    State.TRANSACTION: BadLine(error("already logged in")),
    State.UPDATE: BadLine(error("the session is over")),
}
ARITY: Final = BadLine(error("wrong number of arguments"))
BARE: Final = BadLine(error("a line ends with CR LF and holds neither of them elsewhere, nor NUL"))
TOO_LONG: Final = BadLine(error("line too long"))
ENDLESS: Final = BadLine(error("line too long, closing"), fatal=True)


def parse(line: bytes, state: State) -> Command | BadLine:
    """One line without its CRLF → what to do in ``state``. Verbs are case-insensitive (RFC 1939 section
    3)."""
    verb, space, rest = line.partition(b" ")
    row = COMMANDS.get(verb) or COMMANDS.get(verb.upper())
    if row is None:
        return FOREIGN if verb in _HTTP else UNKNOWN
    if len(line) > COMMAND_MAX - 2 and row.verb != "AUTH":
        return TOO_LONG
    if state not in row.states:
        return WRONG_STATE[state]
    if not space:
        return ARITY if row.least else Command(row.verb, [])
    # PASS has exactly one argument, so spaces belong to it (RFC 1939 section 7).
    args = [rest] if row.verb == "PASS" else rest.split()
    return Command(row.verb, args) if row.least <= len(args) <= row.most else ARITY


class Reader:
    """Collects octets and cuts lines off. Holds at most LINE_MAX octets of an unfinished line."""

    __slots__ = ("_broken", "_buffer", "_position")

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0
        self._broken = False

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        if self._broken:
            return
        self._buffer = data if self._position == len(self._buffer) else self._buffer[self._position :] + data
        self._position = 0

    @property
    def pending(self) -> int:
        """Octets not yet asked for."""
        return len(self._buffer) - self._position

    def next(self, state: State) -> Command | BadLine | None:
        """The next command; None: wait for more input."""
        line = self.next_line()
        return parse(line, state) if isinstance(line, bytes) else line

    def next_line(self) -> bytes | BadLine | None:
        """The next line without its CRLF, as the answer to a SASL challenge; at most LINE_MAX octets."""
        buffer, start = self._buffer, self._position
        if start == len(buffer):
            if start:
                self._buffer, self._position = b"", 0  # an idle session keeps nothing of its last input
            return None
        if buffer.startswith(_TLS, start):  # a handshake may have no line end at all: nobody waits for one
            self._broken, self._buffer, self._position = True, b"", 0
            return FOREIGN
        end = buffer.find(b"\n", start)
        if (end if end >= 0 else len(buffer)) - start > LINE_MAX:
            self._broken, self._buffer, self._position = True, b"", 0
            return ENDLESS
        if end < 0:
            return None
        self._position = end + 1
        if end == start or buffer[end - 1] != 13:
            return BARE
        line = buffer[start : end - 1]
        return BARE if b"\r" in line or b"\0" in line else line


def language(wanted: bytes) -> bytes:
    """The answer to LANG with a language range: ``*`` is what the site prefers, else the tag itself or the best of
    what it is narrower than (RFC 6856 section 3.2, RFC 4647 section 3.4)."""
    asked = wanted.lower()
    if asked == b"i-default":
        return b"+OK i-default English, for want of anything else\r\n"
    if asked == b"*" or asked.partition(b"-")[0] == b"en":
        return b"+OK en English it is\r\n"
    raise Refused("this language is not available")


@lru_cache(maxsize=64)
def capabilities(mechanisms: tuple[str, ...], terms: tuple[str, ...], *, login: bool, stls: bool) -> bytes:
    """The whole answer to CAPA. ``login``: passwords may be sent now; ``stls``: STLS would be accepted now;
    ``terms``: EXPIRE and LOGIN-DELAY.

    What can be used before login is announced after it as well (RFC 2449 section 5), STLS excepted (RFC 2595
    section 4). APOP has no capability: its greeting announces it.
    """
    lines = [
        "+OK capabilities follow",
        "TOP",
        "UIDL",
        "RESP-CODES",
        "AUTH-RESP-CODE",
        "PIPELINING",
        *terms,
        "LANG",
        "UTF8 USER",
    ]
    if login:
        lines.append("USER")
    if mechanisms:
        lines.append(f"SASL {' '.join(mechanisms)}")
    if stls:
        lines.append("STLS")
    lines += ["IMPLEMENTATION mailserver", ".", ""]
    return "\r\n".join(lines).encode()
