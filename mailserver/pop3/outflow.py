"""A large reply on its way out, piece by piece: the next is fetched only when the transport has room for it.

Memory therefore grows neither with the message nor with a client that does not read, and between two pieces
the loop serves everybody else.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mailserver import events
from mailserver.pop3.transfer import Listing, Transfer
from mailserver.store.wire import Octets

if TYPE_CHECKING:
    from mailserver.pop3.session import Session

TURN = 4  # pieces sent before others get their turn


class Outflow:
    """Moves ``source`` into the session's transport; the last piece goes to ``session.finish``."""

    __slots__ = ("_busy", "_session", "_source")

    def __init__(self, session: Session, source: Transfer | Listing) -> None:
        self._session = session
        self._source = source
        self._busy = False  # a piece is being fetched, perhaps by a thread

    def go(self) -> None:
        """Fetch the next piece, unless that is under way or the client has not taken the last one."""
        if not self._busy and not self._session.paused:
            self._busy = True
            self._session.service.loop.call_soon(self._fetch)

    def abandon(self) -> None:
        """The connection is gone. What a thread is reading from is closed when it comes back."""
        if not self._busy:
            self._source.close()

    def _fetch(self) -> None:
        for _ in range(TURN):
            if self._session.lost:
                self._source.close()
                return
            try:
                piece = self._source.cached()
            except OSError as failure:
                self._failed(failure)
                return
            if piece is None:
                self._fetch_by_thread()
                return
            if self._sent_all(piece):
                return
            if self._session.paused:
                break
        self._busy = False
        self.go()

    def _fetch_by_thread(self) -> None:
        service, source = self._session.service, self._source
        assert isinstance(source, Transfer)
        service.loop.run_in_executor(service.executor, source.blocking).add_done_callback(self._fetched)

    def _fetched(self, reading: asyncio.Future[Octets]) -> None:
        if self._session.lost:
            self._source.close()
        elif (failure := reading.exception()) is not None:
            self._failed(failure)
        elif not self._sent_all(reading.result()):
            self._busy = False
            self.go()

    def _sent_all(self, piece: Octets) -> bool:
        """Send it; whether it was the last."""
        if not self._source.finished:
            self._session.send(piece)
            return False
        self._source.close()
        self._session.finish(piece)
        return True

    def _failed(self, failure: BaseException) -> None:
        """Half a message is sent: whatever else we said, the client would take it for the rest."""
        self._source.close()
        session = self._session
        session.service.emit(
            events.Problem("pop3", f"session {session.number}: reading a message failed: {failure}")
        )
        session.cut("read error")
