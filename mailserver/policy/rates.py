"""How much a client or an account may do in a while: token buckets, one number each (GCRA).

A bucket holds what may be done in one period and fills evenly, so a burst up to the whole is free and the average
is kept. The verdict says how long to wait; nothing is booked then, so the caller may hold, refuse or come again.
Pure; ``now`` is seconds of one clock. Tables are bounded: the least recently used bucket leaves first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from mailserver.config.trust import Rates as Settings
from mailserver.policy.networks import Networks, client_key

BUCKETS_MAX = 20_000  # keys of one table; about 200 octets each


class Buckets:
    """At most ``count`` (0: no limit) in ``period`` seconds for each key."""

    def __init__(self, count: int, period: float, most: int = BUCKETS_MAX) -> None:
        self.count, self.period, self._most = count, period, most
        self._full_at: OrderedDict[str, float] = OrderedDict()  # when a bucket will be full again

    def wait(self, key: str, now: float, cost: int = 1) -> float:
        """Seconds until ``cost`` would be in order; 0.0: it is now.

        What costs more than a whole bucket is in order when the bucket is full.
        """
        if not self.count:
            return 0.0
        missing = self._filled_at(key, now) + min(cost, self.count) * self.period / self.count - now
        return max(0.0, missing - self.period) if missing > self.period * (1 + 1e-9) else 0.0  # rounding

    def take(self, key: str, now: float, cost: int = 1) -> float:
        """As ``wait``; when that is 0.0 the bucket has given it, if need be on credit."""
        wait = self.wait(key, now, cost)
        if self.count and not wait:
            spent = min(cost, 2 * self.count) * self.period / self.count
            self._full_at[key] = self._filled_at(key, now) + spent
            self._full_at.move_to_end(key)
            if len(self._full_at) > self._most:
                self._full_at.popitem(last=False)
        return wait

    def _filled_at(self, key: str, now: float) -> float:
        """No debt is deeper than two periods: what is even three away was booked before the clock was set back."""
        full_at = self._full_at.get(key, now)
        return full_at if now < full_at <= now + 3 * self.period else now

    def forget(self, key: str) -> None:
        """A full bucket again."""
        self._full_at.pop(key, None)

    def __len__(self) -> int:
        return len(self._full_at)


class Excess(NamedTuple):
    """Too much: ``wait`` seconds until it would be in order; ``rule`` is the deciding key and its value."""

    wait: float
    rule: str


class Rates:
    """[rates] for one server. Addresses in ``trusted`` are not counted; accounts always are."""

    def __init__(self, settings: Settings, trusted: Networks) -> None:
        self._settings: Settings | None = None
        self.configure(settings, trusted)

    def configure(self, settings: Settings, trusted: Networks) -> None:
        """Other settings: all buckets are full again if a number has changed."""
        self._trusted = trusted
        if settings == self._settings:
            return
        self._settings = settings
        self._connections = Buckets(settings.connections_per_minute, 60.0)
        self._unknown = Buckets(settings.unknown_recipients_per_hour, 3600.0)
        self._messages = {
            True: Buckets(settings.messages_per_hour, 3600.0),
            False: Buckets(settings.address_messages_per_hour, 3600.0),
        }
        self._recipients = {
            True: Buckets(settings.recipients_per_hour, 3600.0),
            False: Buckets(settings.address_recipients_per_hour, 3600.0),
        }

    def unknown_recipient(self, address: str, now: float) -> None:
        """A client without a login has asked for a recipient that does not exist."""
        if self._unknown.count and address not in self._trusted:
            self._unknown.take(client_key(address), now)

    def harvest(self, address: str, now: float) -> Excess | None:
        """Whether it has asked for too many of them. Nothing is counted."""
        if not self._unknown or address in self._trusted:
            return None
        wait = self._unknown.wait(client_key(address), now)
        return _excess(wait, "unknown_recipients_per_hour", self._unknown) if wait else None

    def connection(self, address: str, now: float) -> Excess | None:
        """A client connects."""
        if not self._connections.count or address in self._trusted:
            return None
        wait = self._connections.take(client_key(address), now)
        return _excess(wait, "connections_per_minute", self._connections) if wait else None

    def message(self, account: str | None, address: str, recipients: int, now: float) -> Excess | None:
        """A message is complete: counted, or (nothing is counted then) in excess: hold it or say 450.

        With a login the account's limits hold wherever it comes from, without one the address's.
        """
        logged_in = account is not None
        messages, people = self._messages[logged_in], self._recipients[logged_in]
        if not (messages.count or people.count) or (not logged_in and address in self._trusted):
            return None
        key, prefix = (account or "", "") if logged_in else (client_key(address), "address_")
        if wait := people.wait(key, now, recipients):
            return _excess(wait, f"{prefix}recipients_per_hour", people)
        if wait := messages.take(key, now):
            return _excess(wait, f"{prefix}messages_per_hour", messages)
        people.take(key, now, recipients)
        return None

    def forget(self, account: str) -> None:
        """An administrator trusts this account again: its buckets are full."""
        self._messages[True].forget(account)
        self._recipients[True].forget(account)

    def status(self) -> dict[str, int]:
        """Sizes of the tables."""
        return {
            "connections": len(self._connections),
            "accounts": len(self._messages[True]),
            "addresses": len(self._messages[False]),
            "unknown_recipients": len(self._unknown),
        }


def _excess(wait: float, key: str, buckets: Buckets) -> Excess:
    return Excess(wait, f"[rates] {key} = {buckets.count}")
