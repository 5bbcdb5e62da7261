"""Settings that have the right type and still make no sense together, or would be dangerous. Pure.

Who gets mail is judged in recipients.py, one relay pattern in policy/pattern.py, one route in
routing/route_url.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from mailserver.config import backing, recipients, trusted
from mailserver.config.faults import nearest
from mailserver.config.lines import Path
from mailserver.config.recipients import Known
from mailserver.config.schema import Config
from mailserver.config.shape import Finding
from mailserver.config.units import SocketAddress
from mailserver.message.address import AddressError, normalise_domain
from mailserver.policy import pattern
from mailserver.routing import route_url

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123 2.1
_HOSTNAME = re.compile(rf"(?=.{{1,255}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
# what accounts/passwords.py can verify
_HASH = re.compile(
    r"\$(argon2id|argon2i|argon2d|y|gy|7|6|5|2a|2b|2y|1)\$"
    r"|\{(PLAIN|CLEARTEXT|S?SHA|SSHA256|SSHA512|(?:[A-Z0-9]+-)?CRYPT|YESCRYPT|ARGON2(?:ID|I|D)|SCRAM-SHA-(?:1|256))\}.",
    re.IGNORECASE | re.DOTALL,
)
_PLAIN = re.compile(r"\{(PLAIN|CLEARTEXT)\}", re.IGNORECASE)
_ABOVE_ZERO = (
    ("limits", "idle_timeout"), ("limits", "data_timeout"), ("limits", "message_size"),
    ("limits", "session_timeout"), ("limits", "handshake_timeout"), ("dns", "timeout"),
    ("queue", "max_age"), ("queue", "connect_timeout"), ("log", "max_size"), ("bearer", "timeout"),
)  # fmt: skip


def check(config: Config, *, known: Known | None = None) -> Iterator[Finding]:
    """All findings, warnings among them."""
    yield from _hostname(config)
    yield from _listeners(config)
    yield from _tls(config)
    yield from _numbers(config)
    yield from _log(config)
    yield from _relay(config)
    yield from _routes(config)
    yield from _passwords(config)
    yield from trusted.check(config)
    yield from backing.check(config)
    yield from recipients.check(config, known)


def _hostname(config: Config) -> Iterator[Finding]:
    if not _HOSTNAME.match(config.hostname):
        yield Finding(
            ("hostname",), f'"{config.hostname}" is no host name', 'write it like "mail.example.test"'
        )
    elif "." not in config.hostname:
        wrong = f'"{config.hostname}" has no domain'
        yield Finding(("hostname",), wrong, 'other servers expect one like "mail.example.test"', warning=True)
    if config.run_as in {"root", "0"}:
        yield Finding(("run_as",), "the server never runs as root", 'name another user, like "mailserver"')


def _listeners(config: Config) -> Iterator[Finding]:
    """One address, one service. A wildcard address takes the port on all addresses of its family."""
    taken: dict[SocketAddress, str] = {}
    for service in ("smtp", "submission", "lmtp", "pop3"):
        section = getattr(config, service)
        for key in ("listen", "listen_tls"):
            addresses = getattr(section, key, ()) if section.enabled else ()
            for n, address in enumerate(addresses):
                path: Path = (service, key, n) if len(addresses) > 1 else (service, key)
                if service == "lmtp" and address.port == 25:
                    yield Finding(
                        path, "LMTP never uses port 25 (RFC 2033)", 'take another, like "127.0.0.1:24"'
                    )
                for other, name in taken.items():
                    if _collide(address, other):
                        yield Finding(
                            path, f"{address} is taken by {name} ({other})", "give each its own address"
                        )
                        break
                taken.setdefault(address, f"{service}.{key}")


def _collide(one: SocketAddress, other: SocketAddress) -> bool:
    if one.port != other.port or one.port == 0 or (":" in one.host) != (":" in other.host):
        return False
    return one.host == other.host or bool({one.host, other.host} & {"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def _tls(config: Config) -> Iterator[Finding]:
    tls = config.tls
    for name, path, other in (("certificate", tls.certificate, "key"), ("key", tls.key, "certificate")):
        if path is None and getattr(tls, other) is not None:
            yield Finding(
                ("tls", name), f"missing beside tls.{other}", "give both, or none to have them made"
            )


def _numbers(config: Config) -> Iterator[Finding]:
    for section, key in _ABOVE_ZERO:
        if getattr(getattr(config, section), key) == 0:
            yield Finding((section, key), "zero leaves nothing", "give a value above zero")
    if config.smtp.greeting_delay >= 300:
        wrong = "other servers have given up by then (RFC 5321 4.5.3.2.1)"
        yield Finding(("smtp", "greeting_delay"), wrong, 'a few seconds are enough, like "6s"')
    queue = config.queue
    for n, wait in enumerate(queue.retry):
        if wait == 0:
            path: Path = ("queue", "retry", n) if len(queue.retry) > 1 else ("queue", "retry")
            yield Finding(path, "zero would try without pause", 'give a wait like "5m"')
    if queue.delay_warning >= queue.max_age > 0:
        wrong = "no warning is ever sent, the mail has bounced by then"
        yield Finding(
            ("queue", "delay_warning"), wrong, "make it shorter than queue.max_age, or 0", warning=True
        )


def _log(config: Config) -> Iterator[Finding]:
    target = config.log.target
    if not target or target.endswith("/") or "\0" in target:
        yield Finding(
            ("log", "target"), f'"{target}" is no file', 'write "stderr" or a file like "log/mail.log"'
        )
    elif (
        os.path.basename(target) == target
        and target != "stderr"
        and nearest(target, ["stderr", "stdout", "syslog"])
    ):
        yield Finding(
            ("log", "target"), f'"{target}" is not known', 'write "stderr", or a file name with a dot or /'
        )


def _relay(config: Config) -> Iterator[Finding]:
    first: dict[pattern.Network, int] = {}
    for n, rule in enumerate(config.relay):
        try:
            network = pattern.parse(rule.from_)
        except pattern.PatternError as error:
            yield Finding(("relay", n, "from"), error.wrong, error.right)
            continue
        earlier = first.setdefault(network, n)
        if earlier != n:
            wrong = f"never reached, relay[{earlier + 1}] has the same network"
            yield Finding(("relay", n, "from"), wrong, "keep one of the two", warning=True)
        if rule.action != "relay" or not pattern.is_much_of_the_internet(network):
            continue
        if rule.even_the_whole_internet:
            wrong = f"strangers in {network} may send anywhere through this server"
            yield Finding(("relay", n), wrong, "spammers will find it; close it soon", warning=True)
        else:
            right = 'name your own networks, or add "even_the_whole_internet = true" to this rule'
            yield Finding(("relay", n), f"{network} would let strangers send anywhere", right)


def _routes(config: Config) -> Iterator[Finding]:
    ours = {_normal(name) for name in config.domains}
    seen: dict[str, str] = {}
    for name, url in config.routes.items():
        path: Path = ("routes", name)
        normal = name if name == "*" else _normal(name)
        if normal is None:
            yield Finding(path, f'"{name}" is no domain', 'write a domain like "remote.test", or "*" for all')
        elif normal in seen:
            yield Finding(path, f'the same domain as "{seen[normal]}"', "keep one of the two")
        elif normal in ours:
            wrong = "never used, this is a domain of ours"
            yield Finding(path, wrong, "remove the route, or the domain", warning=True)
        seen.setdefault(normal or name, name)
        try:
            route_url.parse(url)
        except route_url.RouteError as error:
            yield Finding(path, error.wrong, error.right)


def _passwords(config: Config) -> Iterator[Finding]:
    for name, user in config.users.items():
        path: Path = ("users", name, "password")
        if _PLAIN.match(user.password) and user.password.partition("}")[2]:
            wrong = "everybody who reads this file has the password"
            yield Finding(path, wrong, "put the output of `mailserver user hash` here", warning=True)
        elif not _HASH.match(user.password):
            yield Finding(
                path, "no password hash of a known form", "put the output of `mailserver user hash` here"
            )


def _normal(name: str) -> str | None:
    try:
        return normalise_domain(name)
    except AddressError:
        return None
