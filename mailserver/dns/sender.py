"""Whether mail from a domain can be answered: the optional check of MAIL FROM (RFC 5321 2.3.5, RFC 7505)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from mailserver.dns.answers import DnsUnavailable, NoRecords, NoSuchName
from mailserver.dns.resolver import Resolver


class Verdict(NamedTuple):
    """``kind``, and the refusing reply: ``code``, enhanced ``status``, ``text`` (0 and "" when it is ok)."""

    kind: Literal["ok", "bad", "null-mx", "temporary"]
    code: int = 0
    status: str = ""
    text: str = ""

    @property
    def exists(self) -> bool | None:
        """True: mail may come from there; False: refuse it for good; None: not known at the moment."""
        return None if self.kind == "temporary" else self.kind == "ok"


OK = Verdict("ok")


async def sender_domain(resolver: Resolver, domain: str) -> Verdict:
    """Judge the (normalised) domain of an envelope sender. Address literals pass: nothing to look up."""
    if domain.startswith("["):
        return OK
    try:
        records = await resolver.mx(domain)
    except NoSuchName:
        return Verdict("bad", 550, "5.1.8", f"sender domain {domain} does not exist")
    except NoRecords:
        return await _implicit_mx(resolver, domain)
    except DnsUnavailable:
        return _temporary(domain)
    if all(mx.host == "." for mx in records):
        return Verdict("null-mx", 550, "5.7.27", f"sender domain {domain} accepts no mail (null MX)")
    return OK


async def _implicit_mx(resolver: Resolver, domain: str) -> Verdict:
    try:
        await resolver.addresses(domain)
    except (NoSuchName, NoRecords):
        return Verdict("bad", 550, "5.1.8", f"sender domain {domain} has neither MX nor address")
    except DnsUnavailable:
        return _temporary(domain)
    return OK


def _temporary(domain: str) -> Verdict:
    return Verdict("temporary", 451, "4.4.3", f"sender domain {domain} cannot be looked up now")
