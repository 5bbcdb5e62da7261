"""Whether mail from a domain can be answered: the optional check of MAIL FROM (RFC 5321 2.3.5, RFC 7505)."""

from __future__ import annotations

from mailserver import reply
from mailserver.dns.answers import DnsUnavailable, NoRecords, NoSuchName
from mailserver.dns.resolver import Resolver
from mailserver.reply import Reply


async def sender_domain(resolver: Resolver, domain: str) -> Reply:
    """The answer to MAIL for a (normalised) domain. Address literals pass: nothing to look up."""
    if domain.startswith("["):
        return reply.SENDER_OK
    try:
        records = await resolver.mx(domain)
    except NoSuchName:
        return reply.SENDER_DOMAIN_UNKNOWN
    except NoRecords:
        return await _implicit_mx(resolver, domain)
    except DnsUnavailable:
        return reply.SENDER_DOMAIN_UNKNOWN_YET
    if all(mx.host == "." for mx in records):
        return reply.SENDER_DOMAIN_NULL_MX
    return reply.SENDER_OK


async def _implicit_mx(resolver: Resolver, domain: str) -> Reply:
    try:
        await resolver.addresses(domain)
    except (NoSuchName, NoRecords):
        return reply.SENDER_DOMAIN_UNKNOWN
    except DnsUnavailable:
        return reply.SENDER_DOMAIN_UNKNOWN_YET
    return reply.SENDER_OK
