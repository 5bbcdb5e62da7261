"""How the sendmail command reaches the running server: by SMTP to its first [smtp] listener."""

from __future__ import annotations

import os
import select
import socket
import sys
from typing import TYPE_CHECKING, NamedTuple

from mailserver.cli.failure import fail
from mailserver.cli.greeting import connectable
from mailserver.cli.output import escaped

if TYPE_CHECKING:
    import smtplib

    from mailserver.cli.sendmail import Options
    from mailserver.config.schema import Config

TIMEOUT = 300.0  # seconds for one reply, RFC 5321 4.5.3.2
_CHUNK = 1 << 16


class Mail(NamedTuple):
    """``content`` has CRLF line ends; ``sender`` "" is the null sender."""

    sender: str
    recipients: list[str]
    content: bytes
    options: Options


def submit(config: Config, mail: Mail) -> int:
    """One SMTP transaction; who is refused is named. 0 when everybody was accepted."""
    import smtplib

    host, port = _listener(config)
    try:
        with smtplib.SMTP(host, port, local_hostname=config.hostname, timeout=TIMEOUT) as smtp:
            return _transaction(smtp, mail)
    except (
        OSError,
        smtplib.SMTPException,
    ) as error:  # SMTPException is an OSError, too; both named for the reader
        fail(f"nothing was sent: {host}:{port}: {error}")


def converse(config: Config) -> int:
    """-bs: standard input goes to the server, its replies to standard output, until the server hangs up."""
    address = _listener(config)
    try:
        connection = socket.create_connection(address, TIMEOUT)
    except OSError as error:
        fail(f"{address[0]}:{address[1]}: {error.strerror or error}")
    with connection:
        try:
            _pass_on(connection)
        except OSError as error:
            fail(f"{address[0]}:{address[1]}: {error.strerror or error}")
    return 0


def _pass_on(connection: socket.socket) -> None:
    """Line ends become CRLF: SMTP knows no other, programs on a pipe often write LF."""
    watched: list[int | socket.socket] = [sys.stdin.fileno(), connection]
    held = b""  # a CR that may be half of a line end
    while True:
        ready, _, _ = select.select(watched, [], [])
        if connection in ready:
            said = connection.recv(_CHUNK)
            if not said:
                return
            os.write(sys.stdout.fileno(), said)
        if sys.stdin.fileno() in ready:
            typed = os.read(sys.stdin.fileno(), _CHUNK)
            text, held = held + typed, b""
            if typed and text.endswith(b"\r"):
                text, held = text[:-1], b"\r"
            connection.sendall(text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
            if not typed:
                connection.shutdown(socket.SHUT_WR)
                watched.remove(sys.stdin.fileno())


def _listener(config: Config) -> tuple[str, int]:
    if not config.smtp.enabled or not config.smtp.listen:
        fail("the configuration has no [smtp] listener to hand mail to")
    host, port = config.smtp.listen[0]
    return connectable(host), port


def _transaction(smtp: smtplib.SMTP, mail: Mail) -> int:
    smtp.ehlo()
    parameters = [f"SIZE={len(mail.content)}"] if smtp.has_extn("SIZE") else []
    if not mail.content.isascii() and smtp.has_extn("8BITMIME"):
        parameters.append("BODY=8BITMIME")
    if not all(map(str.isascii, (mail.sender, *mail.recipients))):
        parameters.append("SMTPUTF8")
        smtp.command_encoding = "utf-8"
    notify = ""
    if smtp.has_extn("DSN"):
        parameters += [f"RET={mail.options.ret}"] if mail.options.ret else []
        parameters += [f"ENVID={_xtext(mail.options.envelope_id)}"] if mail.options.envelope_id else []
        notify = f" NOTIFY={mail.options.notify}" if mail.options.notify else ""
    # Not by smtplib's mail() and rcpt(): they would mend what is no address, "b@x.test c" to <b@x.testc>.
    _expect(smtp.docmd("MAIL", " ".join((f"FROM:<{mail.sender}>", *parameters))), mail.sender or "<>")
    refused = 0
    for recipient in mail.recipients:
        code, text = smtp.docmd("RCPT", f"TO:<{recipient}>{notify}")
        if code not in {250, 251}:
            refused += 1
            said = f"mailserver: {recipient}: {code} {text.decode('utf-8', 'replace')}"
            print(escaped(said), file=sys.stderr)
    if refused < len(mail.recipients):
        _expect(smtp.data(mail.content), "message")
    return 1 if refused else 0


def _xtext(text: str) -> str:
    """RFC 3461 4."""
    octets = text.encode()
    return "".join(chr(o) if 33 <= o <= 126 and o not in b"+=" else f"+{o:02X}" for o in octets)


def _expect(answer: tuple[int, bytes], what: str) -> None:
    code, text = answer
    if code != 250:
        fail(f"nothing was sent: {what}: {code} {text.decode('utf-8', 'replace')}")
