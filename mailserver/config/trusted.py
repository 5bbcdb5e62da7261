"""[guard], [proxy], [confine], [submission.senders] and [pop3.accounts] judged for their meaning. Pure;
semantics.py asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from mailserver.config.lines import Path
from mailserver.config.schema import Config
from mailserver.config.shape import Finding
from mailserver.message.address import AddressError, parse
from mailserver.policy import pattern
from mailserver.policy.submission import sender_key


def check(config: Config) -> Iterator[Finding]:
    """All findings."""
    yield from _networks(("guard", "trusted"), config.guard.trusted)
    yield from _networks(("proxy", "trusted"), config.proxy.trusted)
    yield from _proxy(config)
    yield from _senders(config)
    for account in config.pop3.accounts:
        yield from _account(("pop3", "accounts", account), account)
    if config.guard.longest_delay < config.guard.first_delay:
        yield Finding(
            ("guard", "longest_delay"), "shorter than guard.first_delay", 'give a longer wait, like "30s"'
        )


def _networks(path: Path, texts: tuple[str, ...]) -> Iterator[Finding]:
    for n, text in enumerate(texts):
        where: Path = (*path, n) if len(texts) > 1 else path
        try:
            network = pattern.parse(text)
        except pattern.PatternError as error:
            yield Finding(where, error.wrong, error.right)
            continue
        if pattern.is_much_of_the_internet(network):
            yield Finding(where, f"{network} would trust strangers", "name your own networks")


def _senders(config: Config) -> Iterator[Finding]:
    for account, senders in config.submission.senders.items():
        where: Path = ("submission", "senders", account)
        yield from _account(where, account)
        for n, sender in enumerate(senders):
            try:
                sender_key(sender)
            except AddressError as error:
                path: Path = (*where, n) if len(senders) > 1 else where
                yield Finding(path, f'"{sender}": {error}', 'write an address, "*@example.test" or "*"')


def _account(where: Path, account: str) -> Iterator[Finding]:
    try:
        parse(account)
    except AddressError as error:
        yield Finding(where, f"no account: {error}", 'write it like "alice@example.test"')


def _proxy(config: Config) -> Iterator[Finding]:
    proxy = config.proxy
    if proxy.listen and not proxy.trusted:
        yield Finding(
            ("proxy", "trusted"), "nobody could connect to proxy.listen", "name the addresses of the proxies"
        )
    sections = (config.smtp, config.submission, config.lmtp, config.pop3)
    open_ = {a for s in sections if s.enabled for a in (*s.listen, *getattr(s, "listen_tls", ()))}
    for n, address in enumerate(proxy.listen):
        if address not in open_:
            where: Path = ("proxy", "listen", n) if len(proxy.listen) > 1 else ("proxy", "listen")
            yield Finding(where, f"{address} is no listener", "write it as its service's listen has it")
    if proxy.timeout == 0:
        yield Finding(("proxy", "timeout"), "zero leaves nothing", "give a value above zero")
