"""A large reply on its way out, piece by piece: the next is fetched only when the transport has room for it.

Memory therefore grows neither with the message nor with a client that does not read, and between two pieces
the loop serves everybody else.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mailserver import events
from mailserver.pop3.transfer import Listing, Transfer

if TYPE_CHECKING:
    from mailserver.pop3.session import Session


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
        service = self._session.service
        if self._session.lost:
            self._source.close()
            return
        try:
            piece = self._source.cached()
        except OSError as failure:
            self._failed(failure)
            return
        if piece is not None:
            self._send(piece)
        elif isinstance(self._source, Transfer):
            reading = service.loop.run_in_executor(service.executor, self._source.blocking)
            reading.add_done_callback(self._fetched)

    def _fetched(self, reading: asyncio.Future[bytes]) -> None:
        if (failure := reading.exception()) is not None:
            self._failed(failure)
        else:
            self._send(reading.result())

    def _send(self, piece: bytes) -> None:
        self._busy = False
        if self._session.lost:
            self._source.close()
        elif self._source.finished:
            self._source.close()
            self._session.finish(piece)
        else:
            self._session.send(piece)
            self.go()

    def _failed(self, failure: BaseException) -> None:
        """Half a message is sent: whatever else we said, the client would take it for the rest."""
        self._source.close()
        session = self._session
        session.service.emit(
            events.Problem("pop3", f"session {session.number}: reading a message failed: {failure}")
        )
        session.cut("read error")
