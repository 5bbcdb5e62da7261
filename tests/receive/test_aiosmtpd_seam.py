"""Every name of aiosmtpd (and asyncio's streams) that the listener inherits, replaces or relies on. A new
version that breaks one of these must fail here, not in production (docs/decisions/001-aiosmtpd.md)."""

from __future__ import annotations

import asyncio
import inspect
import logging

import aiosmtpd
from aiosmtpd.smtp import SMTP, Envelope, Session

from mailserver.receive.listener import Listener, LmtpListener, SmtpListener
from mailserver.receive.session import ClientSession, Transaction
from mailserver.receive.wire import Wire


def test_the_version_is_the_one_that_was_read() -> None:
    assert aiosmtpd.__version__ == "1.4.6"


def test_the_listener_is_aiosmtpds_protocol() -> None:
    assert issubclass(SmtpListener, SMTP)
    assert issubclass(LmtpListener, SMTP)
    assert SMTP.__mro__[1] is asyncio.StreamReaderProtocol


def test_all_callbacks_of_a_transport_are_replaced() -> None:
    callbacks = [
        "connection_made",
        "data_received",
        "eof_received",
        "connection_lost",
        "pause_writing",
        "resume_writing",
    ]
    assert [name for name in callbacks if name not in vars(Wire)] == []
    inherited = {name for name in dir(asyncio.Protocol) if not name.startswith("_")}
    assert inherited == set(callbacks)


def test_nothing_of_the_constructor_is_needed() -> None:
    assert "__init__" in vars(Wire)
    assert "_closed" in vars(Wire), "SMTP.__del__ reads it"
    assert "_closed" in inspect.getsource(SMTP.__del__)


def test_every_verb_of_aiosmtpd_is_answered_by_us() -> None:
    theirs = {name for name in dir(SMTP) if name.startswith("smtp_")}
    ours = {name for cls in Listener.__mro__[: Listener.__mro__.index(SMTP)] for name in vars(cls)}
    assert theirs <= ours
    for table in (SmtpListener.verbs, LmtpListener.verbs):
        assert not any(inspect.iscoroutinefunction(method) for method in table.values())


def test_session_and_envelope_keep_their_attributes() -> None:
    session = Session.__new__(Session)
    logging.getLogger("mail.log").setLevel(logging.WARNING)
    Session.__init__(session, None)  # type: ignore[arg-type]
    names = {name for name in vars(session) if not name.startswith("_")}
    ours = ClientSession(None, 1, ("192.0.2.1", 1), None, 0.0)  # type: ignore[arg-type]
    assert [name for name in names if not hasattr(ours, name)] == []
    envelope = set(vars(Envelope()))
    assert [
        name
        for name in envelope
        if name not in Transaction.__init__.__code__.co_names and not hasattr(Transaction, name)
    ] == []
