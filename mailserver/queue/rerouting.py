"""What waits goes by the routes of now, not by those of the day it was accepted.

A recipient's route is looked up again when the spool is loaded, when its delivery was put off, and, for all that wait,
when [routes] has changed. What is under way by an old route finishes so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from mailserver.events import Emit, Notice
from mailserver.message.envelope import Envelope, Recipient, Remote, State
from mailserver.queue.batch import Batch
from mailserver.queue.judgement import destination_of
from mailserver.queue.schedule import PORTION, Schedule

Onward = Callable[[str], Remote]
"""Final address of somebody elsewhere → its next hop as things are now."""


class Rerouting:
    """``messages``: all that are queued. ``kick``: somebody is to look at the schedule."""

    def __init__(
        self, schedule: Schedule, messages: Mapping[str, Envelope], onward: Onward, emit: Emit,
        kick: Callable[[], object],
    ) -> None:  # fmt: skip
        self._schedule, self._messages, self._onward = schedule, messages, onward
        self._emit, self._kick = emit, kick
        self._generation = 0

    def look_up(self, recipients: Iterable[Recipient]) -> dict[int, str]:
        """Give those who are pending the route of now. By their ids, the destinations they have then."""
        destinations = {}
        for recipient in recipients:
            if recipient.state is State.PENDING:
                if type(recipient.route) is Remote:
                    recipient.route = self._onward(recipient.address)
                destinations[recipient.id] = destination_of(recipient)
        return destinations

    def put_off(self, batch: Batch, recipients: Iterable[Recipient]) -> None:
        """These ``recipients`` of a batch that was tried, and is settled, wait again."""
        destinations = self.look_up(recipients)
        if any(destination != batch.destination for destination in destinations.values()):
            self._schedule.regroup(batch.id, destinations)

    async def all(self) -> None:
        """Look up all that wait, some in each turn of the loop; the log says how many take another way now."""
        self._generation += 1
        mine, moved = self._generation, 0
        seen = PORTION  # recipients in this turn: a message may have thousands
        for id in [*self._messages]:
            if seen >= PORTION:
                seen = 0
                await asyncio.sleep(0)
                if mine != self._generation:  # whoever came later does all
                    break
            if (envelope := self._messages.get(id)) is not None:
                seen += len(envelope.recipients)
                moved += self._schedule.regroup(id, self.look_up(envelope.recipients))
        if moved:
            self._kick()  # what stood in line behind a relay that hangs need not stand in another
            messages = "1 message takes" if moved == 1 else f"{moved} messages take"
            self._emit(Notice("queue", f"{messages} another route from the next attempt on"))
