# ruff: noqa: N802 - verbs and hooks keep the names and arguments of aiosmtpd and asyncio
"""DATA and BDAT (RFC 5321 4.1.1.4, RFC 3030): content, from its first octet to the reply after the commit."""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast

from mailserver import reply
from mailserver.message.body import Body
from mailserver.receive.login import LoginVerbs
from mailserver.receive.session import Transaction
from mailserver.receive.spill import SLICE
from mailserver.receive.transfer import Transfer
from mailserver.receive.wire import CHUNK, COMMAND, DATA, FOREVER
from mailserver.reply import Reply

SQUEEZED_MIN = 4096  # octets worth a write when memory is short
_CHUNK = re.compile(r"(\d{1,18})(?: +(LAST))? *\Z", re.IGNORECASE | re.ASCII)


class ContentVerbs(LoginVerbs):
    """What happens between MAIL's transaction and its end."""

    _transfer: Transfer | None = None
    _left = 0  # octets of the current chunk that have not arrived yet
    _last = False  # the current chunk is the last one
    _swallow: Reply | None = None  # the current chunk is not for us: what it will be answered
    _chunk = 0  # size of the current chunk

    def _reset(self) -> None:
        self.envelope = None
        if self._transfer is not None:
            self._abandon()

    # ---- content ---------------------------------------------------------------------------------
    def smtp_DATA(self, argument: str) -> Reply | None:
        """RFC 5321 4.1.1.4."""
        if argument.strip():
            return reply.NO_ARGUMENT
        if refusal := self._no_content_now():
            return refusal
        transaction = cast(Transaction, self.envelope)
        if self._transfer is not None:
            return reply.AFTER_CHUNK
        if transaction.mail.body == "BINARYMIME":
            return reply.BINARY_NEEDS_CHUNKS
        self._transfer = self._service.handler.handle_DATA(self, self.session, transaction, chunked=False)
        self._mode, self._due = DATA, 0
        if self._service.budget.exhausted:
            self._wait_for_room()
        return reply.GO_AHEAD

    def smtp_BDAT(self, argument: str) -> Reply | None:
        """RFC 3030: the chunk follows at once, so it is read even when it is refused."""
        match = _CHUNK.match(argument)
        if match is None:
            self.reason = "refused"
            return reply.BAD_CHUNK  # where the next command begins cannot be known
        self._left, self._last = int(match[1]), match[2] is not None
        self._swallow = self._no_content_now()
        if self._swallow is None and self._transfer is None:
            self._transfer = self._service.handler.handle_DATA(
                self, self.session, cast(Transaction, self.envelope), chunked=True
            )
            self._due = 0
        self._mode, self._chunk = CHUNK, self._left
        return None if self._left else self._end_of_chunk()

    def _no_content_now(self) -> Reply | None:
        transaction = self.envelope
        if transaction is None:
            return reply.NO_MAIL
        if not transaction.rcpt_tos:
            told = transaction.refused and not self._service.is_lmtp  # there it must be 503, RFC 2033 4.2
            return reply.NO_VALID_RECIPIENTS if told else reply.NO_RCPT
        return None

    def _content(self, data: bytes, position: int) -> tuple[int, Reply | None]:
        """The next octets belong to a message."""
        transfer = self._transfer
        if self._mode == DATA:
            assert transfer is not None
            after = transfer.collector.data(data, position)
            if after >= 0:
                self._mode = COMMAND
                return after, self._complete(transfer)
            after = len(data)
        else:
            after = min(position + self._left, len(data))
            self._left -= after - position
            if self._swallow is None and transfer is not None:
                transfer.collector.chunk(data[position:after])
            if not self._left:
                return after, self._end_of_chunk()
        if transfer is not None and transfer.overflows():
            self._spill(transfer, self._spilled)
        return after, None

    def _end_of_chunk(self) -> Reply | None:
        self._mode = COMMAND
        if self._swallow is not None:
            answer, self._swallow = self._swallow, None
            return answer
        transfer = self._transfer
        assert transfer is not None
        if self._last:
            transfer.collector.finish()
            return self._complete(transfer)
        if refusal := transfer.refusal or self._service.handler.content_refusal(transfer):
            return refusal
        if transfer.overflows():
            self._spill(transfer, self._chunk_spilled)
            return None
        return reply.chunk_received(self._chunk)

    def _chunk_spilled(self, future: asyncio.Future[None]) -> Reply | None:
        self._spilled(future)
        transfer = self._transfer
        return (transfer and transfer.refusal) or reply.chunk_received(self._chunk)

    def _spill(self, transfer: Transfer, then: Any) -> None:
        """Content goes to disk; the client is not read from meanwhile."""
        self._pause()
        self._wait(transfer.write(self._service.loop, self._service.executor), then)

    def squeeze(self) -> None:
        """Memory is used up: what this client has sent goes to disk, and it waits. Between chunks there is nothing that
        would have to wait."""
        transfer, between = self._transfer, self._mode == COMMAND
        if self._busy or transfer is None or self.transport is None or (self._mode < DATA and not between):
            return
        if transfer.collector.held >= SQUEEZED_MIN:
            self._spill(transfer, self._spilled)
        elif between:
            return
        else:
            self._wait_for_room()
        self.deadline = FOREVER

    def _wait_for_room(self) -> None:
        self._pause()
        room = self._service.loop.create_future()
        self._service.budget.wait(room)
        self._wait(room, lambda _: None)

    def _spilled(self, future: asyncio.Future[None]) -> Reply | None:
        """Written, or not: then the rest of the message is swallowed and refused at its end."""
        service, transfer = self._service, self._transfer
        if transfer is None:
            return None
        error = transfer.written(future)
        if error is not None:
            service.storage_failed(error, self)
        if service.budget.exhausted and self.transport is not None:
            self._wait_for_room()
        return None

    # ---- after the end of the content ------------------------------------------------------------
    def _complete(self, transfer: Transfer) -> Reply | None:
        """All of the message has been read; now it may be refused (RFC 5321 4.5.2 wants no earlier reply)."""
        refusal = transfer.refusal or self._service.handler.content_refusal(transfer)
        if refusal is None and not transfer.collector.raw:
            refusal = self._service.handler.loop_refusal(transfer.message, transfer.collector.header())
        if refusal is None:
            given = cast(Transaction, self.envelope).given
            refusal = self._service.handler.rate_refusal(self, transfer.message, given)
        if refusal is not None:
            return self._each(refusal)
        if transfer.collector.raw:
            service = self._service
            work = service.loop.run_in_executor(service.converter, self._service.handler.to_text, transfer)
            self._wait(work, self._converted)
            return None
        if transfer.unwritten:
            self._pause()
            self._wait(transfer.write(self._service.loop, self._service.executor), self._written_out)
            return None
        if transfer.collector.held > SLICE:
            transfer.overflows()  # what waits for its commit counts as well
        return self._accept(transfer, transfer.body())

    def _written_out(self, future: asyncio.Future[None]) -> Reply | None:
        transfer = self._transfer
        assert transfer is not None
        error = transfer.written(future)
        if error is not None:
            self._service.storage_failed(error, self)
            return self._each(cast(Reply, transfer.refusal))
        if self.transport is None:
            return None  # no reply can be given, so the client will send it again: do not take it twice
        return self._accept(transfer, transfer.body())

    def _converted(self, future: asyncio.Future[Body | Reply]) -> Reply | None:
        """BINARYMIME content has become text, or cannot."""
        transfer = self._transfer
        assert transfer is not None
        error = future.exception()
        if error is not None:
            return self._each(self._service.storage_failed(error, self))
        body = future.result()
        if isinstance(body, Reply):
            return self._each(body)
        return self._accept(transfer, body)

    def _accept(self, transfer: Transfer, body: Body) -> Reply | None:
        """Hand over; from here on the message is the queue's, whether or not the client stays."""
        service, session = self._service, self.session
        message = transfer.message
        message.size, message.accepted = body.size, service.now()
        if body.eight_bit and message.body == "7BIT":
            message.body = "8BITMIME"
        try:
            future = service.accept(message, body, session=session.number, rule=session.verdict.rule)
        except Exception as error:
            return self._each(service.storage_failed(error, self, message.id))
        if future.done():
            return self._committed(future)
        self._wait(future, self._committed)
        return None

    def _committed(self, future: asyncio.Future[str]) -> Reply:
        transfer = self._transfer
        assert transfer is not None
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            return self._each(self._service.storage_failed(error, self, transfer.message.id))
        session = self.session
        session.messages += 1
        session.errors = 0
        return self._each(reply.queued(future.result()))

    def _each(self, answer: Reply) -> Reply:
        """The transaction is over. LMTP has one reply for every accepted RCPT (RFC 2033 4.2)."""
        transaction, transfer = self.envelope, self._transfer
        self.envelope = self._transfer = None
        if transfer is not None and transfer.holds:
            transfer.abandon(self._service.executor, self._service.loop)
        if transaction is not None and self._service.is_lmtp:
            return Reply(answer.code, answer.wire * transaction.given, answer.close)
        return answer

    def _abandon(self) -> None:
        """Forget the message being received and what it occupies."""
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.abandon(self._service.executor, self._service.loop)
