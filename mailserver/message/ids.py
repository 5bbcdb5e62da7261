"""Queue ids: short, unique within the machine's life, sorted by time, safe as file names and in SMTP replies."""

from __future__ import annotations

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford base 32: no I, L, O, U to misread over the phone
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]  # 10 bits each


class IdSource:
    """Ids of 13 characters: 45 bits of milliseconds, then a counter of 20 bits that starts at ``seed``."""

    __slots__ = ("_counter", "_millisecond", "_time")

    def __init__(self, seed: int = 0) -> None:
        self._counter = seed & 0xFFFFF
        self._millisecond, self._time = -1, ""

    def next(self, now: float) -> str:
        """A new id for the moment ``now`` (Unix seconds)."""
        counter = self._counter = (self._counter + 1) & 0xFFFFF
        millisecond = int(now * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._time = "".join(_ALPHABET[millisecond >> shift & 31] for shift in range(40, -1, -5))
        return self._time + _PAIRS[counter >> 10] + _PAIRS[counter & 1023]
