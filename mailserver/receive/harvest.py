"""Strangers who try names until some are accepted: they cost no look-up, and learn nothing, beyond so many an hour.

The count is kept for an address over all its sessions ([rates] unknown_recipients_per_hour). Beyond it every recipient
is put off alike, known or not; a mail server that only has an old list of ours comes again later. Not counted: who is
logged in, whom a rule lets relay, our own networks and proxies, and LMTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailserver import reply
from mailserver.policy.admission import Unavailable
from mailserver.reply import Reply
from mailserver.routing.resolve import Resolution, Unknown

if TYPE_CHECKING:
    from mailserver.receive.server import SmtpService
    from mailserver.receive.session import ClientSession
    from mailserver.receive.wire import Wire


def put_off(service: SmtpService, server: Wire, session: ClientSession) -> Reply | None:
    """Before a recipient is looked up: the answer to who has asked for too many that do not exist."""
    excess = service.rates.harvest(session.client, service.now())
    if excess is None or _is_ours(service, session):
        return None
    server.rule = excess.rule
    return reply.TOO_MANY_UNKNOWN


def count(service: SmtpService, session: ClientSession, found: Resolution | Unavailable) -> None:
    """A recipient has been looked up."""
    if type(found) is Unknown and not _is_ours(service, session):
        service.rates.unknown_recipient(session.client, service.now())


def _is_ours(service: SmtpService, session: ClientSession) -> bool:
    known = session.account is not None or session.verdict.action == "relay" or service.is_lmtp
    return known or session.client in service.own
