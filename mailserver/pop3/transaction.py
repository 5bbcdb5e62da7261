"""Commands of the TRANSACTION state (RFC 1939 sections 5 to 7, LAST of RFC 1460), and QUIT, which ends every
state."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mailserver import events
from mailserver.pop3.maildrop import Maildrop
from mailserver.pop3.protocol import OK, TERMINATOR, Refused, State, error
from mailserver.pop3.stuffing import dot_stuff
from mailserver.pop3.surrogate import is_conventional
from mailserver.pop3.transfer import SLICE, Header, HeaderInUtf8, Listing, Transfer, read_cached
from mailserver.store.files import Entry

if TYPE_CHECKING:
    from mailserver.pop3.session import Session

_SHORT = 2048  # a listing of so many messages, marked ones among them, is one reply, a longer one is streamed


def _maildrop(session: Session) -> Maildrop:
    """TRANSACTION and an open maildrop are the same thing."""
    assert session.maildrop is not None
    return session.maildrop


def _stat(session: Session, args: list[bytes]) -> bytes:  # noqa: ARG001 - one signature for all commands
    maildrop = _maildrop(session)
    return b"+OK %d %d\r\n" % (maildrop.count, maildrop.octets)


def _list(session: Session, args: list[bytes]) -> bytes:
    if args:
        number, entry = _maildrop(session).message(args[0])
        return b"+OK %d %d\r\n" % (number, entry.size)
    maildrop = _maildrop(session)
    head = b"+OK %d messages (%d octets)\r\n" % (maildrop.count, maildrop.octets)
    return _listing(session, head, unique_ids=False)


def _uidl(session: Session, args: list[bytes]) -> bytes:
    if args:
        number, entry = _maildrop(session).message(args[0])
        return f"+OK {number} {entry.uid}\r\n".encode()
    return _listing(session, OK, unique_ids=True)


def _listing(session: Session, head: bytes, *, unique_ids: bool) -> bytes:
    maildrop = _maildrop(session)
    parts = maildrop.listing(unique_ids=unique_ids)
    if maildrop.highest <= _SHORT:
        return head + b"".join(parts) + TERMINATOR
    session.stream(Listing(parts))
    return head


def _retr(session: Session, args: list[bytes]) -> bytes:
    maildrop = _maildrop(session)
    number, entry = maildrop.message(args[0])
    maildrop.touch(number)
    return _message(session, number, entry, None)


def _top(session: Session, args: list[bytes]) -> bytes:
    number, entry = _maildrop(session).message(args[0])
    if not args[1].isdigit():
        raise Refused("a number of lines is expected")
    return _message(session, number, entry, int(args[1]))


def _message(session: Session, number: int, entry: Entry, lines: int | None) -> bytes:
    """At once when it is in memory and needs no conversion, else by way of a thread; what is large, in pieces."""
    maildrop = _maildrop(session)
    header: Header = "as-is" if session.utf8 else session.service.config.pop3.without_utf8
    path = f"{maildrop.folder}/{'new' if entry.new else 'cur'}/{entry.name}"
    if entry.size < SLICE:
        data = read_cached(path, entry.size)
        if data is not None and (header == "as-is" or is_conventional(data)):
            return _head(session, number, entry.size, lines) + dot_stuff(data, lines) + TERMINATOR
    elif (transfer := Transfer.now(path, lines, header)) is not None:
        session.stream(transfer)
        return _head(session, number, entry.size, lines)
    return session.wait(_from_disk(session, number, entry, lines, header))


def _head(session: Session, number: int, size: int, lines: int | None) -> bytes:
    """The line before a message that can be sent."""
    if lines is not None:
        return OK
    if session.maildrop is not None:  # None: the client has left meanwhile
        session.maildrop.fetched(number)
    session.service.retrieved += 1
    return b"+OK %d octets\r\n" % size


async def _from_disk(session: Session, number: int, entry: Entry, lines: int | None, header: Header) -> bytes:
    service, mailbox = session.service, _maildrop(session).mailbox
    try:
        content = await service.mailboxes.read(mailbox, entry)
        transfer = await service.loop.run_in_executor(
            service.executor, Transfer.opened, content, lines, header
        )
    except FileNotFoundError:
        # Neither SYS/TEMP nor SYS/PERM (RFC 3206) fits: nothing is broken, and it will not come back.
        raise Refused("another program has removed the message meanwhile", counts=False) from None
    except HeaderInUtf8:
        raise Refused("[UTF8] say UTF8 before you log in to read this message", counts=False) from None
    except OSError as fault:
        service.emit(
            events.Problem("pop3", f"mailbox {mailbox}: {os.fspath(entry.name)} cannot be read: {fault}")
        )
        raise Refused("[SYS/TEMP] the message cannot be read now", counts=False) from None
    session.stream(transfer)
    return _head(session, number, entry.size + transfer.growth, lines)


def _dele(session: Session, args: list[bytes]) -> bytes:
    return b"+OK message %d marked\r\n" % _maildrop(session).delete(args[0])


def _rset(session: Session, args: list[bytes]) -> bytes:  # noqa: ARG001 - one signature for all commands
    _maildrop(session).reset()
    return OK


def _last(session: Session, args: list[bytes]) -> bytes:  # noqa: ARG001 - one signature for all commands
    return b"+OK %d\r\n" % _maildrop(session).last


def _noop(session: Session, args: list[bytes]) -> bytes:  # noqa: ARG001 - one signature for all commands
    return OK


def _quit(session: Session, args: list[bytes]) -> bytes:  # noqa: ARG001 - one signature for all commands
    maildrop = session.maildrop
    if maildrop is not None:
        maildrop.expire(session.service.door.now())
    if maildrop is not None and maildrop.marked:
        session.state = State.UPDATE
        return session.wait(_update(session, maildrop))
    session.leave()
    session.end("quit")
    return b"+OK bye\r\n"


async def _update(session: Session, maildrop: Maildrop) -> bytes:
    """Delete, *then* say so (RFC 1939 section 6). It is finished even if the client does not wait for the
    answer."""
    service = session.service
    try:
        complete = await maildrop.commit(service.mailboxes)
    except OSError as fault:
        service.emit(events.Problem("pop3", f"mailbox {maildrop.mailbox}: deleting failed: {fault}"))
        complete = False
    finally:
        service.deleted += maildrop.removed
        session.leave()
        session.end("quit")
    return b"+OK bye\r\n" if complete else error("some deleted messages not removed")


ACTIONS = {
    "DELE": _dele, "LAST": _last, "LIST": _list, "NOOP": _noop, "QUIT": _quit, "RETR": _retr, "RSET": _rset,
    "STAT": _stat, "TOP": _top, "UIDL": _uidl,
}  # fmt: skip
