"""Renewed certificates are taken over by themselves; what is wrong with one, or soon will be, is said once."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from mailserver.config import schema
from mailserver.events import Emit, Notice, Problem, Warned
from mailserver.host.tls import ServerContext, TlsError

INTERVAL = 5.0  # seconds between two looks at the files
SOON = datetime.timedelta(days=14)  # before the end of a certificate: every renewal program has tried by then


class CertificateWatch:
    """``check`` is cheap enough for every second; ``emit`` hears of renewals, faults and ends in sight."""

    def __init__(self, contexts: Sequence[ServerContext], emit: Emit) -> None:
        self._contexts, self._emit = contexts, emit
        self._next = 0.0
        self._fault = self._said = ""
        self._warned: set[str] = set()

    def check(self, settings: schema.Tls, data_dir: str, now: float) -> None:
        """``now``: Unix time. Never raises TlsError: the old certificates stay in use."""
        if 0 < self._next - now <= INTERVAL:  # a clock set back does not stop us
            return
        self._next = now + INTERVAL
        try:
            changed = [context.refresh(settings, data_dir) for context in self._contexts]
        except TlsError as error:
            self._failed(str(error))
            return
        self._fault = self._said = ""
        if any(changed):
            self._warned.clear()
            self._emit(Notice("tls", "renewed certificates are in use: " + self._shown()))
        self._look_at_ends(now)

    def _failed(self, fault: str) -> None:
        """Said when it is seen twice: a renewal writes certificate and key one after the other."""
        if fault == self._fault and fault != self._said:
            self._said = fault
            self._emit(Problem("tls", f"{fault}; the old certificates stay in use"))
        self._fault = fault

    def _look_at_ends(self, now: float) -> None:
        for entry in self._contexts[0].described():
            end = datetime.datetime.fromisoformat(entry["not_after"])
            left = end - datetime.datetime.fromtimestamp(now, datetime.UTC)
            if left < SOON and entry["names"] not in self._warned:
                self._warned.add(entry["names"])
                when = "has ended" if left < datetime.timedelta(0) else "ends"
                self._emit(
                    Warned("tls", f"the certificate for {entry['names']} {when} on {end:%Y-%m-%d %H:%M} UTC")
                )

    def _shown(self) -> str:
        rows = self._contexts[0].described()
        return "; ".join(f"{row['names']} until {row['not_after']}" for row in rows)
