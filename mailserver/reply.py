"""Every reply the SMTP listener ever sends, named once, with its enhanced status code (RFC 5321 4.2, RFC
3463, RFC 2034).

A Reply is immutable and already encoded; replies with a variable part are functions that return one.
"""

from __future__ import annotations

from typing import NamedTuple


class Reply(NamedTuple):
    """``code`` SMTP code, ``wire`` the whole reply with CRLF. ``close``: hang up after it."""

    code: int
    wire: bytes
    close: bool = False

    @property
    def text(self) -> str:
        """For logs: without CRLF."""
        return self.wire.decode("utf-8", "replace").rstrip("\r\n")


def reply(code: int, status: str, text: str, *, close: bool = False) -> Reply:
    """Compose one reply; ``text`` is ours or already cleaned of control characters."""
    line = f"{code} {status} {text}\r\n" if status else f"{code} {text}\r\n"
    return Reply(code, line.encode("utf-8"), close)


# ---- success (RFC 5321 4.2.3) --------------------------------------------------------------------
BYE = reply(221, "2.0.0", "Bye", close=True)
START_TLS = reply(220, "2.0.0", "Ready to start TLS")
LOGGED_IN = reply(235, "2.7.0", "Authentication succeeded")
HELP = reply(214, "2.0.0", "See RFC 5321; ask the postmaster here for everything else")
OK = reply(250, "2.0.0", "Ok")
SENDER_OK = reply(250, "2.1.0", "Ok")
RECIPIENT_OK = reply(250, "2.1.5", "Ok")
CANNOT_VERIFY = reply(252, "2.5.2", "Send some mail, I will try my best")
GO_AHEAD = reply(354, "", "End data with <CR><LF>.<CR><LF>")

# ---- try again later -----------------------------------------------------------------------------
SHUTTING_DOWN = reply(421, "4.3.2", "Service shutting down, try again later", close=True)
TIMED_OUT = reply(421, "4.4.2", "Silent for too long, closing", close=True)
TOO_SLOW = reply(421, "4.4.2", "The message comes too slowly, closing", close=True)
NO_PROGRESS = reply(421, "4.4.2", "No message for too long, closing", close=True)
TOO_MANY_CONNECTIONS = reply(421, "4.7.0", "Too many connections", close=True)
TOO_MANY_FROM_YOU = reply(421, "4.7.0", "Too many connections from your address", close=True)
TOO_MANY_ERRORS = reply(421, "4.7.0", "Too many errors", close=True)
TOO_MANY_MESSAGES = reply(421, "4.7.0", "Too many messages in one session, connect again", close=True)
NOT_HTTP = reply(421, "4.7.0", "This is SMTP, not HTTP", close=True)
LOGIN_WRONG_TOO_OFTEN = reply(421, "4.7.0", "Too many failed logins", close=True)
TOO_MUCH_MAIL = reply(450, "4.7.1", "Too much mail from your address, try again later")
OUR_FAULT = reply(451, "4.3.0", "Local error, try again later")
SENDER_DOMAIN_UNKNOWN_YET = reply(451, "4.1.8", "Sender's domain cannot be looked up now, try again later")
SENDER_LOOKUP_FAILED = reply(451, "4.3.0", "The sender cannot be looked up now, try again later")
NO_STORAGE = reply(452, "4.3.1", "Insufficient storage, try again later")
TOO_MANY_UNKNOWN = reply(450, "4.7.1", "Too many unknown recipients from your address, try again later")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "Too many recipients, send the rest in another transaction")
LOGIN_UNAVAILABLE = reply(454, "4.7.0", "Temporary authentication failure")

# ---- what the client did wrong: syntax and order (RFC 5321 4.3.2) --------------------------------
LINE_TOO_LONG = reply(500, "5.5.2", "Line too long")
BARE_LINE_END = reply(500, "5.5.2", "Lines end with <CR><LF>, and <CR> or <LF> stands nowhere else")
BAD_OCTETS = reply(500, "5.5.2", "Control or 8-bit characters in the command")
UNKNOWN_COMMAND = reply(500, "5.5.2", "Command not recognised")
AUTH_LINE_TOO_LONG = reply(500, "5.5.6", "Authentication exchange line is too long")
NO_ARGUMENT = reply(501, "5.5.4", "No argument is allowed here")
BAD_ARGUMENT = reply(501, "5.5.4", "Syntax error in the argument")
BAD_HELO = reply(501, "5.5.4", "A host name or address literal is needed")
BAD_MAIL = reply(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]")
BAD_RCPT = reply(501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]")
BAD_SENDER_SYNTAX = reply(501, "5.1.7", "Malformed sender address")
BAD_RECIPIENT_SYNTAX = reply(501, "5.1.3", "Malformed recipient address")
BAD_CHUNK = reply(501, "5.5.4", "Syntax: BDAT size [LAST]", close=True)
LOGIN_CANCELLED = reply(501, "5.7.0", "Authentication cancelled")
LOGIN_MALFORMED = reply(501, "5.5.2", "Malformed authentication response")
NOT_IMPLEMENTED = reply(502, "5.5.1", "Command not implemented")
NO_HELO = reply(503, "5.5.1", "Say EHLO first")
NO_LHLO = reply(500, "5.5.1", "This is LMTP: say LHLO")
NESTED_MAIL = reply(503, "5.5.1", "A transaction is already open")
ONLY_QUIT = reply(503, "5.5.1", "Connections from your address are refused, say QUIT")
NO_MAIL = reply(503, "5.5.1", "MAIL comes first")
NO_RCPT = reply(503, "5.5.1", "RCPT comes first")
AFTER_CHUNK = reply(503, "5.5.1", "Chunks have been sent: go on with BDAT, or RSET")
BINARY_NEEDS_CHUNKS = reply(503, "5.5.1", "BODY=BINARYMIME is sent with BDAT")
NO_PIPELINED_TLS = reply(503, "5.5.1", "Nothing may be sent between STARTTLS and its reply", close=True)
TLS_ALREADY = reply(503, "5.5.1", "TLS is already active")
LOGGED_IN_ALREADY = reply(503, "5.5.1", "Already authenticated")
NOT_WITHIN_MAIL = reply(503, "5.5.1", "Not within a transaction")
NO_LOGIN_OFFERED = reply(503, "5.5.1", "Authentication is not available here")
UNKNOWN_MECHANISM = reply(504, "5.5.4", "Authentication mechanism not supported")
UNKNOWN_PARAMETER = reply(555, "5.5.4", "Parameter not recognised")

# ---- what we will not do (RFC 5321 4.2.3, RFC 3463) ----------------------------------------------
LOGIN_REQUIRED = reply(530, "5.7.0", "Authentication required")
LOGIN_WRONG = reply(535, "5.7.8", "Authentication credentials invalid")
LOGIN_NEEDS_TLS = reply(538, "5.7.11", "Encryption required for authentication")
SENDER_DOMAIN_UNKNOWN = reply(550, "5.1.8", "Sender's domain has neither MX nor address")
SENDER_DOMAIN_NULL_MX = reply(550, "5.7.27", "Sender's domain accepts no mail (null MX)")
BARE_LINE_END_IN_MESSAGE = reply(
    550, "5.6.11", "Message contains a <CR> or <LF> that is not part of <CR><LF>"
)
TOO_LARGE = reply(552, "5.3.4", "Message larger than this server accepts")
NOT_ASCII_WITHOUT_SMTPUTF8 = reply(553, "5.6.7", "A non-ASCII address needs SMTPUTF8")
SENDER_NOT_YOURS = reply(553, "5.7.1", "This sender address does not belong to your account")
NO_VALID_RECIPIENTS = reply(554, "5.5.1", "No valid recipients")
LOOP = reply(554, "5.4.6", "Mail loop: this message has been here before")
CANNOT_CONVERT = reply(554, "5.6.1", "This binary content cannot be converted to text")
OUT_OF_TURN = reply(554, "5.5.1", "Protocol error: wait for my greeting and my answer", close=True)
OUR_NAME = reply(550, "5.7.1", "That is my own name, give yours")
NOT_WELCOME = reply(554, "5.7.1", "Connections from your address are refused")


def queued(id: str) -> Reply:
    """The reply to the end of DATA: the message is on disk."""
    return Reply(250, b"250 2.0.0 Ok: queued as %b\r\n" % id.encode())


def chunk_received(octets: int) -> Reply:
    """The reply to a BDAT that was not the last (RFC 3030 4.2)."""
    return Reply(250, b"250 2.0.0 %d octets received\r\n" % octets)


def challenge(text: bytes) -> Reply:
    """A step of an authentication exchange; ``text`` is base64 already (RFC 4954 4)."""
    return Reply(334, b"334 %b\r\n" % text)


def lines(code: int, texts: list[str]) -> Reply:
    """A reply of several lines (RFC 5321 4.2.1), at least one."""
    wire = "".join(f"{code}-{text}\r\n" for text in texts[:-1]) + f"{code} {texts[-1]}\r\n"
    return Reply(code, wire.encode("ascii"))


def xtext(text: str) -> str:
    """ASCII text in the encoding of DSN parameters (RFC 3461 4)."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)
