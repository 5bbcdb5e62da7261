"""Failed logins slow down: per address and account, and per address when it tries many accounts.

Nobody is barred for good. A login waits for its turn, and turns of one address at one account lie further and
further apart (``first_delay``, doubled with each failure up to ``longest_delay``); so many connections at once
gain nothing, because they queue for the same turns. A login that would wait longer than ``longest_delay`` is put
off unchecked. Failures are forgotten after ``forget`` without another one.

Never slowed down: trusted networks (our own, our proxies). An address with a good login within ``good_login`` is
slowed down only when it fails more than ``forgiven_per_hour``: a forgotten phone with an old password stays
free, somebody who owns one account and guesses at another does not.

Pure; ``now`` is seconds of one clock. All tables are bounded: the least recently used entry leaves first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import msgspec

from mailserver.config.trust import Guard as Settings
from mailserver.policy.networks import Networks, client_key
from mailserver.policy.rates import Buckets

TRACKED_MAX = 20_000  # pairs, and good addresses; about 400 octets each
ADDRESSES_MAX = 10_000  # addresses; about 1 KB each
NAME_MAX = 254  # characters of an account name that are kept: it is what a stranger typed


K = TypeVar("K")
V = TypeVar("V")


class Verdict(NamedTuple):
    """``wait`` seconds before the password is looked at; ``refuse``: not now at all, and it is not checked.

    ``reason`` is for our log, empty when nothing is the matter.
    """

    wait: float = 0.0
    refuse: bool = False
    reason: str = ""


FREE = Verdict()


class Slowed(msgspec.Struct, frozen=True):
    """One line of ``mailserver guard list``. ``account`` "" means: the address as a whole."""

    address: str
    account: str
    failures: int
    accounts: int
    last_failure: float
    next_login: float
    forgotten_at: float
    reason: str


class _Trace:
    """What one pair or one address did. ``over``: failures beyond the free ones; ``turn``: when the next login
    may be checked."""

    __slots__ = ("accounts", "failures", "last", "over", "turn")

    def __init__(self) -> None:
        self.failures, self.over, self.last, self.turn = 0, 0, 0.0, 0.0
        self.accounts: set[str] = set()


_Key = tuple[str, str]  # address, account; account "" = the address as a whole


class Guard:
    """``proxies``: networks besides [guard].trusted that are never slowed down."""

    def __init__(self, settings: Settings, proxies: Iterable[str] = ()) -> None:
        self._pairs: OrderedDict[_Key, _Trace] = OrderedDict()
        self._addresses: OrderedDict[_Key, _Trace] = OrderedDict()
        self._good: OrderedDict[str, float] = OrderedDict()
        self.configure(settings, proxies)

    def configure(self, settings: Settings, proxies: Iterable[str] = ()) -> None:
        """Other settings from now on; what is known stays."""
        self._settings = settings
        self._trusted = Networks((*settings.trusted, *proxies))
        self._forgiven = Buckets(settings.forgiven_per_hour, 3600.0, TRACKED_MAX)

    # ---- one login -----------------------------------------------------------------------------------------
    def ask(self, address: str, account: str, now: float) -> Verdict:
        """Before a password is checked. A verdict with a wait has taken a turn: wait it out, then check."""
        where, name = client_key(address), _name(account)
        if address in self._trusted or self._forgives(where, now):
            return FREE
        verdict, turns = FREE, []
        for table, key in ((self._pairs, (where, name)), (self._addresses, (where, ""))):
            trace = self._live(table, key, now)
            step = self._step(trace) if trace is not None else 0.0
            if trace is None or not step:
                continue
            wait = max(0.0, trace.turn - now)
            if wait > self._settings.longest_delay:
                return Verdict(wait, True, _reason(trace, key))
            turns.append((trace, step))
            if wait > verdict.wait:
                verdict = Verdict(wait, False, _reason(trace, key))
        for trace, step in turns:
            trace.turn = max(trace.turn, now) + step
        return verdict

    def failed(self, address: str, account: str, now: float) -> Verdict:
        """A password was wrong, or no such account: ``wait`` and ``reason`` of the next login, for the log."""
        if address in self._trusted:
            return FREE
        where, name = client_key(address), _name(account)
        if self._forgives(where, now):
            self._forgiven.take(where, now)
            return Verdict(reason="forgiven: good logins came from this address")
        verdict = FREE
        for trace, key in self._count(where, name, now):
            if step := self._step(trace):
                trace.turn = max(trace.turn, now + step)
                if trace.turn - now > verdict.wait:
                    verdict = Verdict(trace.turn - now, False, _reason(trace, key))
        return verdict

    def succeeded(self, address: str, account: str, now: float) -> None:
        """A login was good: its pair starts anew, and its address is known as somebody's.

        The first one ends the slowness of its address, too. Later ones do not: failures beside good logins are
        counted only when there were more than are forgiven, and whoever has one account has a good login any time.
        """
        if address in self._trusted:
            return
        where = client_key(address)
        self._pairs.pop((where, _name(account)), None)
        if not self._is_good(where, now):
            self._addresses.pop((where, ""), None)
        _put(self._good, where, now, TRACKED_MAX)

    # ---- for the administrator -----------------------------------------------------------------------------
    def list(self, now: float) -> list[Slowed]:
        """Everything that is slowed down now or counted towards it, the latest failure first."""
        rows = [
            Slowed(
                key[0], key[1], trace.failures, len(trace.accounts), trace.last, max(trace.turn, now),
                trace.last + self._settings.forget, _reason(trace, key) if self._step(trace) else "",
            )
            for table in (self._pairs, self._addresses)
            for key, trace in table.items()
            if now - trace.last < self._settings.forget
        ]  # fmt: skip
        return sorted(rows, key=lambda row: row.last_failure, reverse=True)

    def clear(self, what: str | None = None) -> int:
        """Forget the failures of an address, of an account, or all of them (None); how many entries went."""
        wanted = None if what is None else {client_key(what), _name(what)}
        gone = 0
        for table in (self._pairs, self._addresses):
            for key in [key for key in table if wanted is None or wanted & set(key)]:
                del table[key]
                gone += 1
        return gone

    def status(self) -> dict[str, int]:
        """Sizes of the tables."""
        return {
            "pairs": len(self._pairs), "addresses": len(self._addresses), "good_addresses": len(self._good),
        }  # fmt: skip

    # ---- counting ------------------------------------------------------------------------------------------
    def _count(self, where: str, name: str, now: float) -> tuple[tuple[_Trace, _Key], tuple[_Trace, _Key]]:
        """One more failure of the pair and of the address; both."""
        at_account, anywhere = (where, name), (where, "")
        pair = self._live(self._pairs, at_account, now) or _Trace()
        whole = self._live(self._addresses, anywhere, now) or _Trace()
        _put(self._pairs, at_account, pair, TRACKED_MAX)
        _put(self._addresses, anywhere, whole, ADDRESSES_MAX)
        for trace in (pair, whole):
            trace.failures += 1
            trace.last = now
        pair.over = pair.failures - self._settings.free_failures
        if len(whole.accounts) <= self._settings.accounts_per_address:
            whole.accounts.add(name)
        whole.over += len(whole.accounts) > self._settings.accounts_per_address
        return (pair, at_account), (whole, anywhere)

    def _live(self, table: OrderedDict[_Key, _Trace], key: _Key, now: float) -> _Trace | None:
        trace = table.get(key)
        if trace is None:
            return None
        if now - trace.last >= self._settings.forget:
            del table[key]
            return None
        if trace.last > now:  # the clock was set back: nobody waits until it has caught up
            trace.last, trace.turn = now, min(trace.turn, now + self._settings.longest_delay)
        return trace

    def _step(self, trace: _Trace) -> float:
        """Seconds between two turns; 0: free."""
        if trace.over <= 0:
            return 0.0
        settings = self._settings
        return float(min(settings.first_delay * 2.0 ** min(trace.over - 1, 60), settings.longest_delay))

    def _forgives(self, where: str, now: float) -> bool:
        """Whether a failure from here would not count: good logins, and not too many failures beside them."""
        if not self._is_good(where, now):
            return False
        return self._settings.forgiven_per_hour > 0 and not self._forgiven.wait(where, now)

    def _is_good(self, where: str, now: float) -> bool:
        since = self._good.get(where)
        # A clock set back prolongs nothing.
        return since is not None and 0 <= now - since < self._settings.good_login


def _reason(trace: _Trace, key: _Key) -> str:
    if key[1]:
        return f"{trace.failures} failed logins at this account from {key[0]}"
    return f"{trace.failures} failed logins at {len(trace.accounts)} or more accounts from {key[0]}"


def _name(account: str) -> str:
    return account.strip().lower()[:NAME_MAX]


def _put(table: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)
