"""One mail transaction in an open session: MAIL, RCPTs, DATA, content, dot (RFC 5321 3.3, 2920, 2033).

With PIPELINING the commands are one write, so a transaction takes three round trips less one; without it
they go one by one. What becomes of each recipient is written into ``outcomes``; recipients without an
outcome after a HostTrouble may be tried elsewhere.
"""

from __future__ import annotations

from contextlib import aclosing

from mailserver.deliver import commands, outcome
from mailserver.deliver.outcome import ConnectionEnded, HostTrouble, Phase, Reply
from mailserver.deliver.payload import Payload
from mailserver.deliver.session import Session
from mailserver.deliver.stuffing import Stuffer
from mailserver.deliver.timeouts import Timeouts
from mailserver.message.envelope import Envelope, Outcome, Recipient

ONE_WRITE = 65536  # octets of content sent together with the dot


class Transaction:
    """``recipients`` go in one transaction; ``full`` are those the peer wants in another one, afterwards."""

    __slots__ = ("_connection", "_outcomes", "_phase", "_remote", "_session", "_timeouts", "full")

    def __init__(self, session: Session, timeouts: Timeouts, outcomes: dict[int, Outcome]) -> None:
        self._session = session
        self._connection = session.connection
        self._remote = session.remote
        self._timeouts = timeouts
        self._outcomes = outcomes
        self._phase: Phase = "mail"
        self.full: list[Recipient] = []

    async def run(
        self, envelope: Envelope, recipients: list[Recipient], payload: Payload, *, utf8: bool
    ) -> None:
        """Raises HostTrouble; OSError when our own content cannot be read (the connection is gone then)."""
        session = self._session
        offered = session.offered
        size, eight_bit = payload.size, payload.eight_bit
        lines = [commands.mail(envelope, offered, size=size, eight_bit=eight_bit, utf8=utf8)]
        lines += [commands.rcpt(r, offered) for r in recipients]
        session.messages_left -= 1
        accepted: list[Recipient] = []
        try:
            data = await self._commands(lines, recipients, accepted)
            session.needs_reset = True
            if data is None:
                return
            if not accepted:
                await self._nothing_to_send(data)
            elif data.code != 354:
                self._settle(accepted, outcome.of_refusal(data, self._remote))
            else:
                await self._content(payload, accepted)
        except ConnectionEnded as end:
            trouble = outcome.of_end(end, self._remote, self._phase)
            if self._phase != "dot":
                raise HostTrouble(trouble) from end
            self._settle(accepted, trouble)
        except HostTrouble:
            raise
        except BaseException:
            self._connection.abort()  # never a dot after half a message
            raise

    async def _commands(
        self, lines: list[bytes], recipients: list[Recipient], accepted: list[Recipient]
    ) -> Reply | None:
        """The reply to DATA, None when it was not sent; ``accepted`` is filled."""
        timeouts = self._timeouts
        piped = "PIPELINING" in self._session.offered
        if piped:
            reset = b"RSET\r\n" if self._session.needs_reset else b""
            self._connection.send(b"".join([reset, *lines, b"DATA\r\n"]))
        if self._session.needs_reset:
            self._phase = "rset"
            await self._ask(None if piped else b"RSET\r\n", timeouts.rset)
        self._phase = "mail"
        mail = await self._ask(None if piped else lines[0], timeouts.mail)
        mail_ok = mail.code // 100 == 2
        if not mail_ok:
            self._settle(recipients, outcome.of_refusal(mail, self._remote))
            if not piped:
                return None
        self._phase = "rcpt"
        for recipient, line in zip(recipients, lines[1:], strict=True):
            reply = await self._ask(None if piped else line, timeouts.rcpt)
            if mail_ok:
                self._judge(recipient, reply, accepted)
        if not accepted and not piped:
            return None
        self._phase = "data"
        return await self._ask(None if piped else b"DATA\r\n", timeouts.data)

    async def _ask(self, line: bytes | None, timeout: float) -> Reply:  # noqa: ASYNC109 - kept by the watchdog
        """Send ``line``, unless it is on its way already, and read its reply. 421 ends everything."""
        if line is not None:
            self._connection.send(line)
        reply = await self._connection.reply(timeout)
        if reply.code == 421:
            self._connection.abort()
            raise HostTrouble(outcome.of_host_reply(reply, self._remote))
        return reply

    def _judge(self, recipient: Recipient, reply: Reply, accepted: list[Recipient]) -> None:
        if reply.code // 100 == 2:
            accepted.append(recipient)
        elif outcome.is_full(reply, accepted_before=bool(accepted)):
            self.full.append(recipient)
        else:
            self._outcomes[recipient.id] = outcome.of_refusal(reply, self._remote)

    def _settle(self, recipients: list[Recipient], result: Outcome) -> None:
        for recipient in recipients:
            self._outcomes.setdefault(recipient.id, result)

    async def _nothing_to_send(self, data: Reply) -> None:
        """Every RCPT failed and yet DATA was taken: an empty message to nobody, then RSET (RFC 2920 3.1)."""
        if data.code == 354:
            self._phase = "content"
            await self._ask(b".\r\n", self._timeouts.final)

    async def _content(self, payload: Payload, accepted: list[Recipient]) -> None:
        connection, stuffer = self._connection, Stuffer()
        if connection.unasked:  # a 250 for a message nobody has seen
            connection.abort()
            raise ConnectionEnded("answered before it was asked", "4.5.0")
        if payload.whole is not None and len(payload.whole) <= ONE_WRITE:
            self._phase = "dot"
            connection.send(stuffer.feed(payload.whole) + stuffer.end())
        else:
            self._phase = "content"
            if not await self._sent(payload, stuffer):
                # The peer may have said why before it hung up ("552 too large"); if not, this raises.
                reply = await self._ask(None, self._timeouts.final)
                connection.abort()
                self._settle(accepted, outcome.of_refusal(reply, self._remote))
                return
            self._phase = "dot"
            connection.send(stuffer.end())
        await self._verdict(accepted)

    async def _sent(self, payload: Payload, stuffer: Stuffer) -> bool:
        """False: the peer hung up, or has answered already. A 250 then is about half a message."""
        connection = self._connection
        try:
            async with aclosing(payload.slices()) as pieces:
                async for piece in pieces:
                    connection.send(stuffer.feed(piece))
                    await connection.drain(self._timeouts.block)
                    if connection.unasked:
                        return False
        except ConnectionEnded:
            return False
        return True

    async def _verdict(self, accepted: list[Recipient]) -> None:
        """One reply for all; over LMTP one for each, in the order of the RCPTs (RFC 2033 4.2)."""
        session = self._session
        dsn = "DSN" in session.offered
        if not session.lmtp:
            self._settle(accepted, self._last_word(await self._ask(None, self._timeouts.final), dsn=dsn))
        else:
            for recipient in accepted:
                reply = await self._ask(None, self._timeouts.final)
                self._settle([recipient], self._last_word(reply, dsn=dsn))
        session.needs_reset = False

    def _last_word(self, reply: Reply, *, dsn: bool) -> Outcome:
        return outcome.of_reply(reply, self._remote, dsn=dsn)
