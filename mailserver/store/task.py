"""A job under way: what it has opened and named so far, and how to undo that."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from mailserver.store.job import Job
from mailserver.store.write import OpenFile


class Task:
    """``made``: names made so far, what undo removes; ``named``: files that have one, in the order in which they got
    their last."""

    __slots__ = ("error", "files", "future", "job", "made", "named")

    def __init__(self, job: Job, future: asyncio.Future[None]) -> None:
        self.job, self.future = job, future
        self.files: list[OpenFile] = []
        self.made: list[str] = []
        self.named: list[OpenFile] = []
        self.error: OSError | None = None

    def fail(self, error: OSError) -> None:
        """Undo: after this nothing of the job is visible. Best effort, for the disk may be sick."""
        self.error = error
        for name in self.made:
            with suppress(OSError):
                os.unlink(name)
        for file in self.files:
            with suppress(OSError):
                if file.grown >= 0:
                    os.ftruncate(file.fd, file.grown)
                elif file.tmp:
                    os.unlink(file.tmp)
            with suppress(OSError):
                os.close(file.fd)
        self.files = []
        self.made = []
        self.named = []
