"""sendmail: the interface programs expect (``-t -i -f -F -N -R -V -bs -bp -q``), handing mail to the running server by
SMTP."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from mailserver.cli import sendmail_smtp, site
from mailserver.cli.failure import explained, fail

if TYPE_CHECKING:
    from mailserver.config.schema import Config

_FLAGS = frozenset("tinvxUGm")  # without a value; all but t and i change nothing here
_VALUES = frozenset("fFrcCBNRVXLheoOpA")  # with one, attached or the next argument
_MODES = frozenset("misp")  # -bm: what we do anyway, -bi: newaliases, which we need not
_NOTIFY = frozenset({"NEVER", "SUCCESS", "FAILURE", "DELAY"})  # RFC 3461 4.1
_RETURN = {"full": "FULL", "hdrs": "HDRS"}


@dataclass
class Options:
    """What the command line says. ``sender`` None: whoever runs us, "": the null sender. ``mode``: the letter behind
    -b, or q. ``notify``, ``ret``, ``envelope_id``: parameters of RCPT and MAIL (RFC 3461), "" where not given."""

    recipients: list[str] = field(default_factory=list)
    from_header: bool = False
    dot_ends: bool = True
    sender: str | None = None
    name: str | None = None
    config: str | None = None
    mode: str = "m"
    notify: str = ""
    ret: str = ""
    envelope_id: str = ""


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
    -N CONDITIONS  reports wanted: never, or success,failure,delay
    -R full|hdrs   how much of the message a report returns
    -V ID          envelope id that reports repeat
    -bs            speak SMTP on standard input and output
    -bp            list the queue (mailq)
    -q             try now what waits in the queue
    -c, -C FILE    configuration file
    Other options of sendmail (-oem, -odb, -B8BITMIME, -v …) are taken and change nothing.

    \b
    printf 'Subject: hello\\n\\nIt works.\\n' | mailserver sendmail alice@example.test
    """
    raise typer.Exit(run(arguments or []))


def run(arguments: list[str]) -> int:
    """Do what the arguments say; the exit code."""
    options = parse(arguments)
    if options.mode == "i":
        return 0
    if options.mode == "p" or (options.mode == "q" and not options.recipients and not options.from_header):
        from mailserver.cli import queue

        queue.list_(config=options.config) if options.mode == "p" else queue.retry(config=options.config)
        return 0
    config = site.loaded(options.config).config
    if options.mode == "s":
        return sendmail_smtp.converse(config)
    return _send(options, config)


def _send(options: Options, config: Config) -> int:
    """What is on standard input."""
    from mailserver.cli import sendmail_message as form

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
    recipients = [_complete(recipient, domain) for recipient in recipients]
    return sendmail_smtp.submit(config, sendmail_smtp.Mail(sender, recipients, whole.content(), options))


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
    for recipient in options.recipients:
        if not recipient.isprintable():
            fail(f"sendmail: a line break or another control character in the recipient {recipient!r}", 2)
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
        elif letter in "qI" or (letter == "b" and letters and letters in _MODES):
            options.mode = letters if letter == "b" else letter.lower()
            return
        else:
            fail(f"sendmail: -{letter}{letters} is not offered here", 2)


def _value(letter: str, value: str, options: Options) -> None:
    if not value.isprintable():
        fail(f"sendmail: -{letter}: a line break or another control character in {value!r}", 2)
    match letter:
        case "f" | "r":
            options.sender = value
        case "F":
            options.name = value
        case "c" | "C":
            options.config = value
        case "o":
            options.dot_ends = options.dot_ends and value != "i"
        case "N":
            options.notify = _notify(value)
        case "R":
            if value not in _RETURN:
                fail(f"sendmail: -R {value}: write full or hdrs", 2)
            options.ret = _RETURN[value]
        case "V":
            options.envelope_id = value


def _notify(value: str) -> str:
    wanted = value.upper().replace(" ", "").split(",")
    if not _NOTIFY.issuperset(wanted) or ("NEVER" in wanted and len(wanted) > 1):
        fail(f"sendmail: -N {value}: write never, or some of success,failure,delay", 2)
    return ",".join(wanted)


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
