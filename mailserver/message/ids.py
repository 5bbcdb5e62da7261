"""Queue ids: short, unique within the machine's life, sortable by time, safe as file names and in SMTP replies."""

from __future__ import annotations

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford base 32: no I, L, O, U to misread over the phone


class IdSource:
    """Makes ids of 13 characters: 45 bits of milliseconds, 20 bits of counter that starts where ``seed`` says."""

    __slots__ = ("_counter",)

    def __init__(self, seed: int = 0) -> None:
        self._counter = seed & 0xFFFFF

    def next(self, now: float) -> str:
        """A new id for the moment ``now`` (Unix seconds)."""
        self._counter = (self._counter + 1) & 0xFFFFF
        value = (int(now * 1000) & ((1 << 45) - 1)) << 20 | self._counter
        out = ""
        for _ in range(13):
            out = _ALPHABET[value & 31] + out
            value >>= 5
        return out
