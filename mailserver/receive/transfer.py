"""One message being received: the collector, the memory it takes, and the file it overflows into.

Owned by one connection. Once ``body`` has handed the content over, the file belongs to whoever got the
body.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import Executor

from mailserver import reply
from mailserver.message.body import Body
from mailserver.message.envelope import Envelope
from mailserver.receive.collector import COALESCE, Collector
from mailserver.receive.spill import MEMORY_MAX, SLICE, Budget, SpillFile
from mailserver.receive.submission import Additions
from mailserver.reply import Reply

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EFBIG})


def storage_reply(error: BaseException) -> Reply | None:
    """452 when the machine is out of room or descriptors; None: the fault is of another kind."""
    return reply.NO_STORAGE if isinstance(error, OSError) and error.errno in FULL else None


class Transfer:
    """``message``: the envelope as it will be accepted; ``head``: the trace headers; ``path``: where a
    file would lie. ``refusal``: why the content will be refused once it has been read to its
    end. ``squeeze``: what the budget calls when memory is used up. ``additions``: what ``head`` may still get."""

    __slots__ = (
        "_budget",
        "_counted",
        "_file",
        "_squeeze",
        "_writing",
        "additions",
        "collector",
        "head",
        "message",
        "path",
        "refusal",
    )

    def __init__(
        self,
        message: Envelope,
        head: bytes,
        collector: Collector,
        *,
        budget: Budget,
        path: str,
        squeeze: Callable[[], None],
    ) -> None:
        self.message, self.head, self.collector = message, head, collector
        self.refusal: Reply | None = None
        self.additions: Additions | None = None
        self._budget, self.path, self._squeeze = budget, path, squeeze
        self._counted = 0
        self._file: SpillFile | None = None
        self._writing = False

    def overflows(self) -> bool:
        """Bring the budget up to date; whether content should go to the file now."""
        held = self.collector.held
        if not held:  # the budget knows only who has something to give back
            if self._counted:
                self.release()
            return False
        more, self._counted = held - self._counted, held
        self._budget.take(more, self, self._squeeze)
        if held < COALESCE:
            return False
        return held > MEMORY_MAX or self._budget.exhausted or (self._file is not None and held >= SLICE)

    @property
    def holds(self) -> bool:
        """It occupies memory that was counted, or a file."""
        return self._counted > 0 or self._file is not None

    @property
    def unwritten(self) -> bool:
        """The message is in a file, but not all of it."""
        return self._file is not None and self.collector.held > 0

    def write(self, loop: asyncio.AbstractEventLoop, executor: Executor | None) -> asyncio.Future[None]:
        """Move what is in memory to the file, in a thread; then call ``written`` with the future."""
        if self._file is None and not self.collector.raw:
            self._complete_head(ended=False)
        chunks = self.collector.take()
        if self._file is None:
            self._file = SpillFile(self.path)
            chunks.insert(0, self.head)
        self._writing = True
        return loop.run_in_executor(executor, self._file.write, chunks)

    def written(self, future: asyncio.Future[None]) -> Exception | None:
        """The write is over; its memory is free. An error makes the message unacceptable and is returned."""
        self._writing = False
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self.refusal = storage_reply(error) or reply.OUR_FAULT
            self.collector.refuse()
            if self._file is not None:
                self._file.remove()
        self.release(self.collector.held)
        return error if isinstance(error, Exception) else None

    def release(self, left: int = 0) -> None:
        """Only ``left`` octets are still in memory."""
        counted, self._counted = self._counted, left
        self._budget.give(counted - left, None if left else self)

    def body(self) -> Body:
        """The whole content; all of it is in memory or all of it in the file."""
        collector = self.collector
        self._complete_head(ended=True)
        size, lines = len(self.head) + collector.size, self.head.count(b"\n") + collector.lines
        if self._file is None:
            return Body(self.head, size, lines, tuple(collector.chunks), None, collector.eight_bit)
        self._file.close()
        path, self._file = self._file.path, None
        return Body(self.head, size, lines, (), path, collector.eight_bit)

    def _complete_head(self, *, ended: bool) -> None:
        """Once, before the head is written anywhere."""
        if self.additions is not None:
            self.head += self.additions.to_collected(self.collector, ended=ended)
            self.additions = None

    def raw(self) -> bytes:
        """BODY=BINARYMIME: the content as received. Blocks when most of it is in the file."""
        if self._file is None:
            return b"".join(self.collector.chunks)
        self._file.close()
        written = memoryview(self._file.read())[len(self.head) :]
        return b"".join((written, *self.collector.chunks))

    def abandon(self, executor: Executor | None, loop: asyncio.AbstractEventLoop) -> None:
        """Refused, reset, or the client is gone: forget everything, the file too."""
        self.collector.refuse()
        self.release()
        if self._file is not None and not self._writing:
            file, self._file = self._file, None
            loop.run_in_executor(executor, file.remove)
