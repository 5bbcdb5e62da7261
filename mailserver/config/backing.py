"""[backends."…"] judged for its meaning. Pure; semantics.py asks for it."""

from __future__ import annotations

from collections.abc import Iterator

from mailserver.config.accounts import Backend
from mailserver.config.lines import Path
from mailserver.config.schema import Config
from mailserver.config.shape import Finding
from mailserver.message.address import AddressError, normalise_domain

_KEYS = {"checkpassword": ("program", "exists", "user"), "postgresql": ("url", "query")}
_NEEDED = {
    "checkpassword": {
        "program": 'write it like ["/usr/bin/checkpassword", "/bin/true"]',
        "exists": 'write it like ["/usr/local/bin/has-mailbox"]',
    },
    "postgresql": {"url": 'write it like "postgresql://mail@127.0.0.1/mail"'},
}


def check(config: Config) -> Iterator[Finding]:
    """All findings."""
    taken: dict[str, str] = {}
    for name, backend in config.backends.items():
        path: Path = ("backends", name)
        yield from _keys(path, backend)
        for n, text in enumerate(backend.domains):
            where: Path = (*path, "domains", n) if len(backend.domains) > 1 else (*path, "domains")
            try:
                domain = normalise_domain(text)
            except AddressError:
                yield Finding(where, f'"{text}" is no domain name', 'write it like "example.test"')
                continue
            if domain in taken:
                wrong = f"{domain} is kept by {taken[domain]} already"
                yield Finding(where, wrong, "let each domain have one backend")
            taken.setdefault(domain, name)


def _keys(path: Path, backend: Backend) -> Iterator[Finding]:
    for key, right in _NEEDED[backend.type].items():
        if not getattr(backend, key):
            yield Finding((*path, key), f"missing for {backend.type}", right)
    for kind, keys in _KEYS.items():
        for key in keys:
            if kind != backend.type and key in backend.model_fields_set:
                yield Finding((*path, key), f"is a key for {kind}", f"this one is {backend.type}: remove it")
    for key in ("timeout", "fresh"):
        if getattr(backend, key) == 0:
            yield Finding((*path, key), "zero leaves nothing", "give a value above zero")
