"""Relay rules: what a client may do because of its address; the first rule that matches decides.

*May connect* and *may relay* are two permissions: ``reject`` takes away both, ``accept`` gives the first
alone (mail to our own recipients), ``relay`` gives both. Where no rule matches the verdict is ``accept``: an
empty table lets the world write to us and nobody write through us. Addresses are compared as numbers:
IPv4-mapped IPv6 (``::ffff:192.0.2.1``, RFC 4291 2.5.5.2) is IPv4, a zone (``fe80::1%eth0``, RFC 4007) is
left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, cast, get_args

from mailserver.policy import pattern
from mailserver.policy.networks import parse_address

Action = Literal["relay", "accept", "reject"]


class Verdict(NamedTuple):
    """``rule`` says which rule decided: ``config.toml:12 [[relay]] 10.0.0.0/8`` or ``default``."""

    action: Action
    rule: str

    @property
    def may_connect(self) -> bool:
        """Whether the client is greeted at all."""
        return self.action != "reject"

    @property
    def may_relay(self) -> bool:
        """Whether its mail may go to domains that are not ours, without a login."""
        return self.action == "relay"


DEFAULT = Verdict("accept", "default")


class _Length(NamedTuple):
    """All networks of one prefix length. ``first`` is the smallest rule number among them."""

    first: int
    shift: int
    rules: dict[int, int]


class RelayTable:
    """Rules compiled for look-up: one dict per prefix length in use, so cost does not grow with their number.

    Immutable; a reload compiles a new one and swaps it.
    """

    __slots__ = ("_v4", "_v6", "_verdicts")

    def __init__(self, verdicts: list[Verdict], v4: tuple[_Length, ...], v6: tuple[_Length, ...]) -> None:
        self._verdicts, self._v4, self._v6 = verdicts, v4, v6

    @classmethod
    def compile(cls, rules: Iterable[tuple[str, str, str]]) -> RelayTable:
        """``(pattern, action, source)`` in order → table. Raises ValueError naming the pattern."""
        verdicts: list[Verdict] = []
        found: dict[int, dict[int, dict[int, int]]] = {4: {}, 6: {}}
        for index, (text, action, source) in enumerate(rules):
            if action not in get_args(Action):
                raise ValueError(f'rule "{text}": action "{action}" is none of relay, accept, reject')
            network = pattern.parse(text)
            shift = network.max_prefixlen - network.prefixlen
            same_length = found[network.version].setdefault(shift, {})
            same_length.setdefault(int(network.network_address) >> shift, index)
            verdicts.append(Verdict(cast(Action, action), source))
        return cls(verdicts, _by_first(found[4]), _by_first(found[6]))

    def __len__(self) -> int:
        return len(self._verdicts)

    def decide(self, ip: str) -> Verdict:
        """The verdict for a client at ``ip``. What is no IP address (a local socket) gets the default."""
        address = parse_address(ip)
        if address is None:
            return DEFAULT
        number, lengths = int(address), self._v4 if address.version == 4 else self._v6
        best = len(self._verdicts)
        for first, shift, rules in lengths:
            if first > best:
                break
            best = min(best, rules.get(number >> shift, best))
        return self._verdicts[best] if best < len(self._verdicts) else DEFAULT


def _by_first(found: dict[int, dict[int, int]]) -> tuple[_Length, ...]:
    """Lengths in the order of their earliest rule, so a look-up may stop before it has tried them all."""
    return tuple(sorted(_Length(min(rules.values()), shift, rules) for shift, rules in found.items()))
