"""What a name look-up can say, as values and exceptions (RFC 1035, RFC 2308, RFC 7505)."""

from __future__ import annotations

from typing import NamedTuple


class MX(NamedTuple):
    """One mail exchanger. ``host``: lower case, without the final dot; ``"."`` is the null MX (RFC 7505)."""

    preference: int
    host: str


class DnsError(Exception):
    """A look-up gave no records; ``str(error)`` says why, in our words."""


class NoSuchName(DnsError):  # noqa: N818 - the agreed name says the fact
    """NXDOMAIN: the name does not exist. Permanent as far as DNS goes."""


class NoRecords(DnsError):  # noqa: N818 - the agreed name says the fact
    """NODATA: the name exists and has no record of the type asked for (RFC 2308 2.2)."""


class DnsUnavailable(DnsError):  # noqa: N818 - the agreed name says the fact
    """SERVFAIL, REFUSED, timeout, no server reachable: nothing is known, ask again later."""
