"""What the site asks of those who fetch mail, as CAPA announces it: EXPIRE and LOGIN-DELAY (RFC 2449 6.5, 6.7)."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final, NamedTuple

from mailserver.config.schema import Pop3
from mailserver.message.address import parse

DAY: Final = 86_400
REMEMBERED_MAX: Final = 20_000  # accounts whose last login is known; about 200 octets each


class Terms(NamedTuple):
    """Seconds. ``expire``: the age from which mail may be deleted; infinity: only clients delete."""

    expire: float
    login_delay: float

    def announced(self, mark: str = "") -> tuple[str, str]:
        """Two lines of CAPA. Whole days and seconds, rounded so that what is promised is kept."""
        days = "NEVER" if self.expire == math.inf else str(int(self.expire // DAY))
        return f"EXPIRE {days}{mark}", f"LOGIN-DELAY {math.ceil(self.login_delay)}{mark}"


class AllTerms:
    """[pop3] and [pop3.accounts]. Raises AddressError."""

    def __init__(self, settings: Pop3) -> None:
        self._usual = Terms(settings.expire, settings.login_delay)
        self._own = {
            parse(account).key: Terms(
                self._usual.expire if own.expire is None else own.expire,
                self._usual.login_delay if own.login_delay is None else own.login_delay,
            )
            for account, own in settings.accounts.items()
        }
        every = (self._usual, *self._own.values())
        worst = Terms(min(t.expire for t in every), max(t.login_delay for t in every))
        # Before login nobody knows whose terms will hold: the worst of all, marked as such.
        self.before_login = worst.announced(" USER" if self._own else "")

    def of(self, account: str) -> Terms:
        """Those of one account, a mailbox key."""
        return self._own.get(account, self._usual)


class LastLogins:
    """When accounts logged in; bounded, the longest ago is forgotten first. ``now``: seconds of one clock."""

    def __init__(self) -> None:
        self._at: OrderedDict[str, float] = OrderedDict()

    def wait(self, account: str, delay: float, now: float) -> float:
        """Seconds until a login would be in order; 0.0: it is now."""
        last = self._at.get(account)
        return 0.0 if last is None else max(0.0, last + delay - now)

    def note(self, account: str, now: float) -> None:
        self._at[account] = now
        self._at.move_to_end(account)
        if len(self._at) > REMEMBERED_MAX:
            self._at.popitem(last=False)
