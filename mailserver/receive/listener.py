"""The verbs of SMTP, submission and LMTP (RFC 5321, 2033, 3030, 3207, 4954): order and state; handler.py
decides.

The methods keep aiosmtpd's names, ``smtp_VERB``, and its hook contract ``handle_VERB(server, session,
envelope, …)``, but are plain functions that return a Reply, or None when the reply comes later.
"""

# ruff: noqa: N802, ARG002 - verbs and hooks keep the names and arguments of aiosmtpd and asyncio

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from mailserver import reply
from mailserver.receive.contents import ContentVerbs
from mailserver.receive.parameters import BadParameter, parse_mail, parse_rcpt
from mailserver.receive.session import ClientSession, Transaction
from mailserver.receive.wire import Verb, Wire
from mailserver.reply import Reply

Greeting = Callable[[Wire, ClientSession, Transaction | None, str], Reply]


class Listener(ContentVerbs):
    """One client's conversation."""

    # ---- greetings -------------------------------------------------------------------------------
    def smtp_EHLO(self, argument: str) -> Reply | None:
        """RFC 5321 4.1.1.1; also LHLO of RFC 2033."""
        return self._greeted(self._service.handler.handle_EHLO, argument)

    def smtp_HELO(self, argument: str) -> Reply | None:
        """RFC 5321 4.1.1.1."""
        return self._greeted(self._service.handler.handle_HELO, argument)

    def _greeted(self, decide: Greeting, argument: str) -> Reply:
        """A greeting begins anew; one that is refused leaves everything as it was (RFC 5321 4.1.4)."""
        session = self.session
        if session.verdict.action == "relay" and session.host_name is None:
            self._service.named(session, argument)
        answer = decide(self, session, self.envelope, argument)
        if answer.code == 250:
            self._reset()
        return answer

    def smtp_wrong_greeting(self, argument: str) -> Reply | None:
        """RFC 2033 4.1: an SMTP client that came here by mistake must not go on."""
        return reply.NO_LHLO

    # ---- a transaction ---------------------------------------------------------------------------
    def smtp_MAIL(self, argument: str) -> Reply | None:
        """RFC 5321 4.1.1.2."""
        session = self.session
        if session.host_name is None:
            return reply.NO_HELO
        if self.envelope is not None:
            return reply.NESTED_MAIL
        try:
            mail = parse_mail(argument)
        except BadParameter as bad:
            return bad.reply
        transaction = Transaction(mail)
        answer = self._service.handler.handle_MAIL(self, session, transaction)
        if not isinstance(answer, Reply):
            self._wait_for_sender(asyncio.ensure_future(answer), transaction)
            return None
        if answer.code == 250:
            self.envelope = transaction
        return answer

    def _wait_for_sender(self, check: asyncio.Future[Reply], transaction: Transaction) -> None:
        def done(check: asyncio.Future[Reply]) -> Reply:
            answer = check.result()
            if answer.code == 250:
                self.envelope = transaction
            return answer

        self._wait(check, done)

    def smtp_RCPT(self, argument: str) -> Reply | None:
        """RFC 5321 4.1.1.3."""
        transaction = self.envelope
        if transaction is None:
            return reply.NO_MAIL
        if self._transfer is not None:
            return reply.AFTER_CHUNK
        try:
            rcpt = parse_rcpt(argument)
        except BadParameter as bad:
            transaction.refused += 1
            return bad.reply
        answer = self._service.handler.handle_RCPT(self, self.session, transaction, rcpt)
        if not isinstance(answer, Reply):
            self._wait(
                asyncio.ensure_future(answer), lambda done: _counted(cast(Reply, done.result()), transaction)
            )
            return None
        return _counted(answer, transaction)

    def smtp_RSET(self, argument: str) -> Reply | None:
        """RFC 5321 4.1.1.5."""
        if argument.strip():
            return reply.NO_ARGUMENT
        self._reset()
        return reply.OK

    # ---- the rest --------------------------------------------------------------------------------
    def smtp_NOOP(self, argument: str) -> Reply | None:
        """RFC 5321 4.1.1.9."""
        return reply.OK

    def smtp_QUIT(self, argument: str) -> Reply | None:
        """RFC 5321 4.1.1.10."""
        if argument.strip():
            return reply.NO_ARGUMENT
        self._reset()
        self.reason = "quit"
        return reply.BYE

    def smtp_VRFY(self, argument: str) -> Reply | None:
        """RFC 5321 3.5.3: nobody learns here who exists."""
        return reply.CANNOT_VERIFY if argument.strip() else reply.BAD_ARGUMENT

    def smtp_EXPN(self, argument: str) -> Reply | None:  # type: ignore[override]  # a coroutine there
        """RFC 5321 3.5.2."""
        return reply.NOT_IMPLEMENTED

    def smtp_HELP(self, argument: str) -> Reply | None:
        """RFC 5321 4.1.1.8."""
        return reply.HELP


def _counted(answer: Reply, transaction: Transaction) -> Reply:
    if answer.code != 250:
        transaction.refused += 1
    return answer


def _verbs(words: str) -> dict[str, Verb]:
    return {word: getattr(Listener, "smtp_" + word) for word in words.split()}


_EVERYWHERE = "MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY EXPN HELP STARTTLS AUTH"


class SmtpListener(Listener):
    """Port 25 and 587."""

    verbs = _verbs("EHLO HELO " + _EVERYWHERE)


class LmtpListener(Listener):
    """RFC 2033: LHLO instead of HELO and EHLO, a reply per recipient."""

    verbs = _verbs(_EVERYWHERE) | {
        "LHLO": Listener.smtp_EHLO,
        "EHLO": Listener.smtp_wrong_greeting,
        "HELO": Listener.smtp_wrong_greeting,
    }
