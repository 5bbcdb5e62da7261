"""sendmail: the interface programs expect (``-t -i -f -F``), handing mail to the running server by SMTP."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from mailserver.cli import site
from mailserver.cli.failure import explained, fail
from mailserver.cli.output import escaped

if TYPE_CHECKING:
    import smtplib

    from mailserver.config.schema import Config

TIMEOUT = 300.0  # seconds for one reply, RFC 5321 4.5.3.2
_FLAGS = frozenset("tinvUGmM")  # without a value; all but t and i change nothing here
_VALUES = frozenset("fFrcCBNRVXLhOpA")  # with one, attached or the next argument
_IGNORED_MODES = frozenset({"m", "i"})  # -bm: what we do anyway, -bi: newaliases


@dataclass
class Options:
    """What the command line says. ``sender`` None: whoever runs us, "": the null sender."""

    recipients: list[str] = field(default_factory=list)
    from_header: bool = False
    dot_ends: bool = True
    sender: str | None = None
    name: str | None = None
    config: str | None = None


def register(app: typer.Typer) -> None:
    """Hang the command into the tree."""
    app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(sendmail)


def main() -> None:
    """Console entry ``mailserver-sendmail``."""
    try:
        code = run(sys.argv[1:])
    except typer.Exit as end:
        code = end.exit_code
    except Exception as error:
        found = explained(error)
        if found is None:
            raise
        code = found
    sys.exit(code)


def sendmail(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="RECIPIENT", show_default=False)] = None,
) -> None:
    """Send the message on standard input. Options as sendmail has them:

    \b
    -t             recipients from To, Cc and Bcc; Bcc is removed
    -i, -oi        a line with a single dot does not end the message
    -f ADDRESS     envelope sender; "" or "<>" is the null sender
    -F NAME        full name, for a From that has to be added
    -c, -C FILE    configuration file

    \b
    printf 'Subject: hello\\n\\nIt works.\\n' | mailserver sendmail alice@example.test
    """
    raise typer.Exit(run(arguments or []))


def run(arguments: list[str]) -> int:
    """Send what is on standard input; the exit code."""
    from mailserver.cli import sendmail_message as form

    options = parse(arguments)
    config = site.loaded(options.config).config
    domain = next(iter(config.domains), config.hostname)
    message = form.read(sys.stdin.buffer, dot_ends=options.dot_ends)
    recipients = form.addresses(options.recipients)
    if options.from_header:
        recipients = list(dict.fromkeys([*recipients, *form.recipients(message)]))
    if not recipients:
        fail("no recipients: name them, or give -t to take them from the header", 2)
    sender = _user() if options.sender is None else options.sender.strip().removeprefix("<").removesuffix(">")
    sender = _complete(sender, domain) if sender else ""
    now = time.time()
    message_id = f"<{time.time_ns():x}.{os.getpid()}@{config.hostname}>"
    author = sender or _complete("mailer-daemon", domain)
    whole = form.completed(message, sender=author, name=options.name, now=now, message_id=message_id)
    return _submit(
        config, sender, [_complete(recipient, domain) for recipient in recipients], whole.content()
    )


def parse(arguments: list[str]) -> Options:
    """The sendmail way of options: flags may stand together, values may be attached, order is free."""
    options, rest = Options(), list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            options.recipients += rest
            break
        if argument == "--config" or argument.startswith("--config="):
            options.config = argument.partition("=")[2] or _next(rest, argument)
        elif argument.startswith("-") and len(argument) > 1:
            _short(argument[1:], rest, options)
        else:
            options.recipients.append(argument)
    return options


def _short(letters: str, rest: list[str], options: Options) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter in _FLAGS:
            options.from_header = options.from_header or letter == "t"
            options.dot_ends = options.dot_ends and letter != "i"
        elif letter in _VALUES:
            _value(letter, letters or _next(rest, f"-{letter}"), options)
            return
        elif letter == "o":
            options.dot_ends = options.dot_ends and letters != "i"
            return
        elif letter == "q" or (letter == "b" and letters in _IGNORED_MODES):
            return
        else:
            fail(f"sendmail: -{letter}{letters} is not offered here", 2)


def _value(letter: str, value: str, options: Options) -> None:
    if letter in "fr":
        options.sender = value
    elif letter == "F":
        options.name = value
    elif letter in "cC":
        options.config = value


def _next(rest: list[str], option: str) -> str:
    if not rest:
        fail(f"sendmail: {option} needs a value", 2)
    return rest.pop(0)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"


def _complete(address: str, domain: str) -> str:
    return address if "@" in address else f"{address}@{domain}"


def _submit(config: Config, sender: str, recipients: list[str], content: bytes) -> int:
    """One SMTP transaction; who is refused is named. 0 when everybody was accepted."""
    import smtplib

    from mailserver.cli.greeting import connectable

    if not config.smtp.enabled or not config.smtp.listen:
        fail("the configuration has no [smtp] listener to hand mail to")
    host, port = config.smtp.listen[0]
    try:
        with smtplib.SMTP(connectable(host), port, local_hostname=config.hostname, timeout=TIMEOUT) as smtp:
            return _transaction(smtp, sender, recipients, content)
    except (
        OSError,
        smtplib.SMTPException,
    ) as error:  # SMTPException is an OSError, too; both named for the reader
        fail(f"nothing was sent: {host}:{port}: {error}")


def _transaction(smtp: smtplib.SMTP, sender: str, recipients: list[str], content: bytes) -> int:
    smtp.ehlo()
    options = [f"SIZE={len(content)}"] if smtp.has_extn("SIZE") else []
    if not content.isascii() and smtp.has_extn("8BITMIME"):
        options.append("BODY=8BITMIME")
    if not all(map(str.isascii, (sender, *recipients))):
        options.append("SMTPUTF8")
        smtp.command_encoding = "utf-8"
    _expect(smtp.mail(sender, options), sender or "<>")
    refused = 0
    for recipient in recipients:
        code, text = smtp.rcpt(recipient)
        if code not in {250, 251}:
            refused += 1
            print(
                escaped(f"mailserver: {recipient}: {code} {text.decode('utf-8', 'replace')}"), file=sys.stderr
            )
    if refused < len(recipients):
        _expect(smtp.data(content), "message")
    return 1 if refused else 0


def _expect(answer: tuple[int, bytes], what: str) -> None:
    code, text = answer
    if code != 250:
        fail(f"nothing was sent: {what}: {code} {text.decode('utf-8', 'replace')}")
