"""Kept connections: the next message to the same destination finds an open session (DESIGN, R05).

Bounded: ``idle_max`` idle sessions for each destination, each for ``keep`` seconds and MESSAGES_MAX messages.
One timer for the whole pool, running only while something is kept, ten times per ``keep`` at most; a session
may therefore go a tenth early.
"""

from __future__ import annotations

import asyncio

from mailserver.deliver.session import Session


class Pool:
    """``keep``, ``quit_timeout`` in seconds; ``keep`` 0 keeps nothing. ``keep``, ``idle_max`` may change."""

    def __init__(self, keep: float, idle_max: int, quit_timeout: float) -> None:
        self.keep = keep
        self.idle_max = idle_max
        self._quit_timeout = quit_timeout
        self._idle: dict[str, list[Session]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return sum(map(len, self._idle.values()))

    def take(self, destination: str) -> Session | None:
        """The session used last, so the surplus can grow old; None when there is none alive."""
        sessions = self._idle.get(destination)
        while sessions:
            session = sessions.pop()
            if session.connection.alive:
                session.connection.idle = False
                return session
        return None

    def give(self, destination: str, session: Session) -> None:
        """Keep ``session`` for the next message, or end it."""
        if not session.connection.alive:
            session.connection.abort()  # answered out of turn, or gone already
            return
        sessions = self._idle.setdefault(destination, [])
        if self._closed or self.keep <= 0 or session.messages_left <= 0 or len(sessions) >= self.idle_max:
            session.connection.quit(self._quit_timeout)
            return
        session.connection.idle = True
        loop = asyncio.get_running_loop()
        session.idle_until = loop.time() + self.keep
        sessions.append(session)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self.keep * 0.9, self._sweep)

    async def close(self) -> None:
        """End every idle session, waiting quit_timeout at most. A later ``give`` ends its session at once."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        sessions = [s for kept in self._idle.values() for s in kept]
        self._idle.clear()
        for session in sessions:
            session.connection.quit(self._quit_timeout)
        if ending := [s.connection.closed for s in sessions if not s.connection.closed.done()]:
            await asyncio.wait(ending, timeout=self._quit_timeout)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        step = self.keep / 10
        ripe = loop.time() + step
        for destination, sessions in list(self._idle.items()):
            # The list is in order of age: whoever was given back first is the first to go.
            while sessions and (sessions[0].idle_until <= ripe or not sessions[0].connection.alive):
                sessions.pop(0).connection.quit(self._quit_timeout)
            if not sessions:
                del self._idle[destination]
        oldest = min((sessions[0].idle_until for sessions in self._idle.values()), default=None)
        self._sweeper = None if oldest is None else loop.call_at(max(oldest - step, ripe), self._sweep)
