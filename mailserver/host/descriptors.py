"""Descriptors left to this process (RLIMIT_NOFILE), so that clients are refused before files cannot be opened.

Who asks last gets least: mail clients stop being admitted first, then new messages (452 4.3.1), then POP3; what
remains is for delivery, the accounts file, the log and the administrator's commands.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from mailserver.events import Emit, Warned

LARGEST = 256  # descriptors kept for the most modest asker, however high the limit


class DescriptorWatch:
    """``limit``: RLIMIT_NOFILE as it is now. Two small system calls for each question."""

    def __init__(self, limit: int, emit: Emit) -> None:
        self.limit = limit
        self._emit = emit
        self._low = False
        self._any = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        share = min(limit // 16, LARGEST)
        self._plenty = 2 * max(16, share)
        self.for_sessions = self._keeping(max(16, share))
        self.for_messages = self._keeping(max(12, share * 3 // 4))
        self.for_mailboxes = self._keeping(max(8, share // 2))

    def close(self) -> None:
        """It holds one itself."""
        os.close(self._any)

    def free(self) -> int:
        """Descriptors that can still be opened: the kernel always gives the lowest number that is free."""
        with contextlib.suppress(OSError):
            number = os.dup(self._any)
            os.close(number)
            return self.limit - number
        return 0

    def _keeping(self, reserve: int) -> Callable[[], bool]:
        def enough() -> bool:
            left = self.free()
            if left < reserve and not self._low:
                self._low = True
                text = f"{left} of {self.limit} descriptors left, clients are refused: raise the limit (LimitNOFILE=)"
                self._emit(Warned("open files", text))
            elif left >= self._plenty:
                self._low = False
            return left >= reserve

        return enough
